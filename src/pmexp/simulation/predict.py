"""predict(): the peak memory of a training step that never ran.

The step runs on fake tensors, which have sizes and no memory, as CUDA would run it or as the CPU does.
A deep model is simulated with 2 and with 3 of its layers: in each phase of the step every layer more adds the
same bytes, so that the peak of each phase is a straight line in the number of layers, and the peak of the
step is the highest of them. (In backward a layer between the first and the last can be no peak: memory
changes by the same amount from one layer to the next.)
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pmexp.errors import UserError
from pmexp.simulation.cuda_kernels import cuda_semantics
from pmexp.simulation.internals import DATA_DEPENDENT, fake_tensors
from pmexp.simulation.live_bytes import CATEGORIES, LiveBytes, Snapshot
from pmexp.simulation.step import BACKWARD_MIDDLE, Batch, peaks_of_training

NOT_MODELLED = (
    "the CUDA context and library workspaces (cuBLAS, cuDNN)",
    "fragmentation and cached blocks of the allocator: reserved memory is above allocated memory",
    "scratch memory inside kernels",
    "fusion by torch.compile",
    "buffers of communication between processes",
)
_CUDA_BLOCK = 512  # bytes; CUDA's caching allocator rounds every tensor up to it
_FEWEST_LAYERS = 2  # a first and a last one
Shapes = dict[str, tuple[tuple[int, ...], torch.dtype]]


@dataclass(frozen=True)
class Prediction:
    """The peak of a step."""

    peak: Snapshot
    phase: str  # of the step, in which it lies
    layers: int  # of the model
    simulated_layers: tuple[int, ...]  # one number: all of them; two: the rest is extrapolated

    @property
    def peak_bytes(self) -> int:
        return self.peak.total


def predict(
    build: Callable[[], nn.Module],
    shapes: Shapes,
    *,
    prepare: Callable[[nn.Module], None] = lambda module: None,
    forward: Callable[[], AbstractContextManager[object]] = nullcontext,
    like: str = "cuda",
    accumulate: int = 1,
    extrapolate: bool = True,
) -> Prediction:
    """The peak of a training step with AdamW.

    Args:
        build: makes the module; called under ``torch.device("meta")``, so nothing is allocated.
        shapes: shape and dtype of each keyword argument of the module, and of "labels".
        prepare: changes the module when its tensors are fake ones of the CPU: dropout, checkpointing.
        forward: entered around each forward; the device type of what it enters is "cpu" in any case.
        like: "cuda" or "cpu": on whose operators.
        accumulate: micro-batches a step.
        extrapolate: False simulates every layer.

    Raises:
        UserError: the model's control flow depends on data.
    """
    whole = _built(build)
    depth = len(layers_of(whole))
    cut = extrapolate and depth > _FEWEST_LAYERS + 1 and _equal(layers_of(whole))
    counts = (_FEWEST_LAYERS, _FEWEST_LAYERS + 1) if cut else (depth,)
    found = []
    for count in counts:
        module = _built(build)
        del layers_of(module)[count:]
        found.append(_simulated(module, shapes, prepare, forward, like, accumulate))
    peaks = found[0] if not cut else _extrapolated(found[0], found[1], depth - _FEWEST_LAYERS)
    phase = max(peaks, key=lambda name: peaks[name].total)
    return Prediction(peaks[phase], phase, depth, counts)


def layers_of(module: nn.Module) -> nn.ModuleList:
    """The longest list of modules in it, a transformer's layers; an empty one where there is none."""
    lists = [part for part in module.modules() if isinstance(part, nn.ModuleList)]
    return max(lists, key=len, default=nn.ModuleList())


def _built(build: Callable[[], nn.Module]) -> nn.Module:
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
    prepare: Callable[[nn.Module], None],
    forward: Callable[[], AbstractContextManager[object]],
    like: str,
    accumulate: int,
) -> dict[str, Snapshot]:
    on_cuda = like == "cuda"
    counter = LiveBytes(_CUDA_BLOCK if on_cuda else 1)
    try:
        with fake_tensors(), cuda_semantics() if on_cuda else nullcontext():
            _give_fake_tensors(module)
            prepare(module)
            tensors = {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in shapes.items()}
            batch = Batch({n: t for n, t in tensors.items() if n != "labels"}, tensors["labels"])
            return peaks_of_training(
                module,
                batch,
                counter,
                forward=forward,
                layers=tuple(layers_of(module)),
                accumulate=accumulate,
                foreach=on_cuda,
            )
    except DATA_DEPENDENT as error:
        raise UserError(
            f"method=simulate: {type(module).__name__} decides by the values of its inputs ({error}), which "
            "a simulation does not have; use method=measure on the device"
        ) from None


def _give_fake_tensors(module: nn.Module) -> None:
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
                name: low.by_category[name] + steps * (more[phase].by_category[name] - low.by_category[name])
                for name in CATEGORIES
            }
        )
        for phase, low in fewer.items()
        if phase != BACKWARD_MIDDLE
    }
