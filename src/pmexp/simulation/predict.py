"""Predicts the peak memory of a training step that never ran.

The step runs on fake tensors, which have sizes and no memory, as CUDA would run it or as the CPU does.
A deep model is simulated with 2 and with 3 of its layers: in each phase of the step every layer more adds the
same bytes, so that the peak of each phase is a straight line in the number of layers, and the peak of the
step is the highest of them. (In backward a layer between the first and the last can be no peak: memory
changes by the same amount from one layer to the next.)
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pmexp.errors import UserError
from pmexp.simulation.cuda_kernels import cuda_semantics
from pmexp.simulation.internals import DATA_DEPENDENT, fake_tensors
from pmexp.simulation.known_values import KnownValues
from pmexp.simulation.live_bytes import LiveBytes, Snapshot
from pmexp.simulation.sharding import Sharding
from pmexp.simulation.step import BACKWARD_MIDDLE, peaks_of_training

NOT_MODELLED = (
    "the CUDA context and library workspaces (cuBLAS, cuDNN)",
    "fragmentation and cached blocks of the allocator: reserved memory is above allocated memory",
    "scratch memory inside kernels",
    "fusion by torch.compile",
    "buffers of communication between processes, but for DeepSpeed's reduce bucket",
)
CUDA_BLOCK = 512  # bytes; CUDA's caching allocator rounds every tensor up to it
_FEWEST_LAYERS = 2  # a first and a last one
Shapes = dict[str, tuple[tuple[int, ...], torch.dtype]]


@dataclass(frozen=True)
class Prediction:
    """The peaks of a step's phases, and the highest of them, which is the step's."""

    peaks: dict[str, Snapshot]
    layers: int  # the model has so many
    simulated_layers: tuple[int, ...]  # one number: all of them; two: the rest is extrapolated

    @property
    def phase(self) -> str:
        return max(self.peaks, key=lambda name: self.peaks[name].total)

    @property
    def peak(self) -> Snapshot:
        return self.peaks[self.phase]

    @property
    def peak_bytes(self) -> int:
        return self.peak.total


def predict(
    build: Callable[[], nn.Module],
    shapes: Shapes,
    *,
    prepare: Callable[[nn.Module], object] = lambda module: None,
    forward: Callable[[], AbstractContextManager[object]] = nullcontext,
    like: str = "cuda",
    accumulate: int = 1,
    sharding: Sharding = Sharding(),  # noqa: B008  frozen
    extrapolate: bool = True,
) -> Prediction:
    """Predicts the peak of a training step with AdamW, in bytes.

    Args:
        build: makes the module; called under ``torch.device("meta")``, so nothing is allocated.
        shapes: shape and dtype of each keyword argument of the module, and of "labels". An "attention_mask"
            is of ones; no other value is known.
        prepare: changes the module when its tensors are fake ones of the CPU: dropout, checkpointing.
        forward: entered around each forward; the device type of what it enters is "cpu" in any case.
        like: "cuda" or "cpu": whose operators the step runs on.
        accumulate: micro-batches a step.
        sharding: what this process holds where there are others.
        extrapolate: False simulates every layer.

    Raises:
        UserError: the model's control flow depends on data.
    """
    whole = built(build)
    depth = len(longest_list_of(whole))
    cut = extrapolate and depth > _FEWEST_LAYERS + 1 and _equal(longest_list_of(whole))
    counts = (_FEWEST_LAYERS, _FEWEST_LAYERS + 1) if cut else (depth,)
    phases = [
        _simulated(module, shapes, prepare, forward, like, accumulate, sharding)
        for module in (cut_to(whole, counts) if cut else (whole,))
    ]
    peaks = phases[0] if not cut else _extrapolated(phases[0], phases[1], depth - _FEWEST_LAYERS)
    peaks = {name: sharding.held(name, peak) for name, peak in peaks.items()}
    return Prediction(peaks, depth, counts)


def longest_list_of(module: nn.Module) -> nn.ModuleList:
    """The longest list of modules in it, a transformer's layers; an empty one where there is none."""
    lists = [part for part in module.modules() if isinstance(part, nn.ModuleList)]
    return max(lists, key=len, default=nn.ModuleList())


def cut_to(whole: nn.Module, counts: Sequence[int]) -> list[nn.Module]:
    """Copies of the module with so many of its layers. To build one takes longer than all else where a model
    is deep. The module itself loses the layers that no copy has."""
    layers = longest_list_of(whole)
    del layers[max(counts) :]
    copies = [copy.deepcopy((whole, layers)) for _ in counts]
    for (_, own), count in zip(copies, counts, strict=True):
        del own[count:]
    return [module for module, _ in copies]


def built(build: Callable[[], nn.Module]) -> nn.Module:
    """Returns the module that `build` makes, its parameters on the device meta, without memory."""
    with torch.device("meta"):
        return build()


def _equal(layers: nn.ModuleList) -> bool:
    """Whether all layers have the same parts of the same sizes."""
    first, *others = [
        [(name, tuple(value.shape), value.dtype) for name, value in layer.named_parameters()]
        for layer in layers
    ]
    return all(other == first for other in others)


def _simulated(
    module: nn.Module,
    shapes: Shapes,
    prepare: Callable[[nn.Module], object],
    forward: Callable[[], AbstractContextManager[object]],
    like: str,
    accumulate: int,
    sharding: Sharding,
) -> dict[str, Snapshot]:
    on_cuda = like == "cuda"
    counter = LiveBytes(CUDA_BLOCK if on_cuda else 1, sharding.shares)
    try:
        with fake_tensors(), KnownValues(), cuda_semantics() if on_cuda else nullcontext():
            give_fake_tensors(module)
            prepare(module)
            return peaks_of_training(
                module,
                *batch_of(shapes),
                counter,
                forward=forward,
                layers=tuple(longest_list_of(module)),
                accumulate=accumulate,
                foreach=on_cuda,
            )
    except DATA_DEPENDENT as error:
        raise UserError(
            f"method=simulate: {type(module).__name__} decides by the values of its inputs ({error}), which "
            "a simulation does not have; use method=measure on the device"
        ) from None


def batch_of(shapes: Shapes) -> tuple[dict[str, Tensor], Tensor]:
    """The inputs and the labels."""
    tensors = {
        name: (torch.ones if name == "attention_mask" else torch.empty)(shape, dtype=dtype)
        for name, (shape, dtype) in shapes.items()
    }
    labels = tensors.pop("labels")
    return tensors, labels


def give_fake_tensors(module: nn.Module) -> None:
    """Puts an empty tensor in the place of each parameter and buffer; what is shared stays shared."""
    made: dict[Any, Tensor] = {}
    for part in module.modules():
        for own in (part._parameters, part._buffers):
            for name, old in own.items():
                if old is not None and old not in made:
                    made[old] = _empty_like(old)
                if old is not None:
                    own[name] = made[old]  # type: ignore[assignment]


def _empty_like(old: Tensor) -> Tensor:
    new = torch.empty(old.shape, dtype=old.dtype, device="cpu")
    return nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new


def _extrapolated(fewer: dict[str, Snapshot], more: dict[str, Snapshot], steps: int) -> dict[str, Snapshot]:
    """Each phase's peak `steps` layers beyond `fewer`, where `more` has one layer more."""
    return {
        phase: Snapshot(
            {
                name: held + steps * (more[phase].by_category[name] - held)
                for name, held in low.by_category.items()
            }
        )
        for phase, low in fewer.items()
        if phase != BACKWARD_MIDDLE
    }
