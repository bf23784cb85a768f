"""Simulates a training step of any model, loss and optimizer, all layers of it, on fake tensors."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from traceback import walk_tb
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pmexp.errors import UserError, error_line
from pmexp.measure.flops import FlopCounter
from pmexp.packed_dropout.dry_run import without_torchs_log
from pmexp.simulation.cuda_kernels import cuda_semantics
from pmexp.simulation.fake_copy import fake_batch, fake_copy
from pmexp.simulation.internals import DATA_DEPENDENT, fake_tensors, tree_leaves
from pmexp.simulation.known_values import KnownValues
from pmexp.simulation.live_bytes import LiveBytes, Snapshot
from pmexp.simulation.predict import CUDA_BLOCK
from pmexp.simulation.step import MOST_RUN, peaks_of_step
from pmexp.simulation.traffic import OperatorTraffic


@dataclass(frozen=True)
class OwnStep:
    """Says what a step is, in terms of a copy of the model, each module of it in the mode it is in."""

    model: nn.Module
    batch: Any
    loss: Callable[[nn.Module, Any], Tensor]  # runs the copy on the copied batch
    # Makes the optimizer of the copy, where it also gets the copies of tensors by the original's id.
    optimizer: Callable[[nn.Module, dict[int, Any]], Optimizer]
    prepare: Callable[[nn.Module], object] = lambda model: None  # changes the copy
    contexts: Sequence[Callable[[], AbstractContextManager[object]]] = ()  # are around each forward
    micro_batches: int = 1
    clip_norm: float | None = 1.0


@dataclass(frozen=True)
class SimulatedStep:
    """The peaks of the phases of a step, and what its operators do."""

    peaks: dict[str, Snapshot]
    products: int  # floating-point operations of matrix products, convolutions and attention in a step
    traffic_bytes: int  # are read and written by operators in a step

    @property
    def phase(self) -> str:
        return max(self.peaks, key=lambda name: self.peaks[name].total)


def simulated_step(step: OwnStep, like: str = "cuda") -> SimulatedStep:
    """Simulates `step` as CUDA would run it, or the CPU where `like` is "cpu".

    Raises:
        UserError: the step cannot run on fake tensors; what it raised is the cause.
    """
    name = type(step.model).__name__
    for path, part in step.model.named_modules():
        if isinstance(part, nn.RNNBase) and (library := _kept_by(part, like)):
            raise UserError(
                f"predict: {path!r} of {name} is a recurrent layer, and {library} alone knows what it keeps; "
                "simulated is torch's own way on the CPU: like='cpu', for an LSTM with "
                "torch.backends.mkldnn.enabled=False"
            )
        if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.sparse:
            raise UserError(
                f"predict: {path!r} of {name} is made with sparse=True, and the size of a sparse gradient "
                "depends on the batch's values; leave sparse=True out"
            )
    try:
        with without_torchs_log():
            return _simulated(step, like == "cuda")
    except UserError:
        raise
    except DATA_DEPENDENT as error:
        who = _optimizer_in(error) or name
        raise UserError(
            f"predict: {who} decides by values of its tensors that a simulation does not have ({error})"
        ) from error
    except Exception as error:  # whatever a model, a loss or an optimizer of one's own raises
        raise UserError(f"predict: a step of {name} cannot be simulated: {error_line(error)}") from error


def _optimizer_in(error: BaseException) -> str:
    """The class of the optimizer that was at work where `error` was raised; empty where none was."""
    owners = (frame.f_locals.get("self") for frame, _ in walk_tb(error.__traceback__))
    return next((f"the optimizer {type(one).__name__}" for one in owners if isinstance(one, Optimizer)), "")


def _kept_by(part: nn.RNNBase, like: str) -> str:
    """Names the library that runs a recurrent layer and keeps what it needs out of sight; empty for torch."""
    if like == "cuda":
        return "cuDNN"
    uses_onednn = isinstance(part, nn.LSTM) and torch.backends.mkldnn.is_available()
    return "oneDNN" if uses_onednn and torch.backends.mkldnn.enabled else ""


def _simulated(step: OwnStep, on_cuda: bool) -> SimulatedStep:
    counter, flops, traffic = LiveBytes(CUDA_BLOCK if on_cuda else 1), FlopCounter(), OperatorTraffic()
    known, runs = KnownValues(), min(step.micro_batches, MOST_RUN)
    with fake_tensors(), known, cuda_semantics(flops.add) if on_cuda else nullcontext():
        twin, copies = fake_copy(step.model, known)
        batch = fake_batch(step.batch, known)
        step.prepare(twin)
        optimizer = step.optimizer(twin, copies)
        if on_cuda:
            _take_cudas_kernels(optimizer)
        if _is_adafactor(optimizer):  # it scales its update by norms, whose values size nothing
            optimizer.register_step_pre_hook(lambda *_: known.assume(1.0))
            optimizer.register_step_post_hook(lambda *_: known.assume(None))
        counter.follow(twin, optimizer)
        counter.assign((leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)), "activations")

        @contextmanager
        def forward() -> Iterator[None]:
            with ExitStack() as stack:
                for context in step.contexts:
                    stack.enter_context(context())
                yield

        def take() -> dict[str, Snapshot]:
            return peaks_of_step(
                lambda: step.loss(twin, batch),
                optimizer,
                counter,
                forward=forward,
                micro_batches=runs,
                clip_norm=step.clip_norm,
                foreach=on_cuda,
            )

        before = counter.passing_bytes
        with flops, traffic:
            peaks = take()
        if counter.passing_bytes > before:  # the model holds outputs, which lie beside those of the next step
            peaks = take()
    times = step.micro_batches / runs
    return SimulatedStep(peaks, round(flops.total * times), round(traffic.bytes * times))


def _take_cudas_kernels(optimizer: Optimizer) -> None:
    """Has torch's optimizers update all parameters at once, as each but Adafactor does on CUDA by itself."""
    for group in optimizer.param_groups:
        if group.get("foreach", False) is None and not group.get("fused") and _updates_at_once(optimizer):
            group["foreach"] = True


def _updates_at_once(optimizer: Optimizer) -> bool:
    return type(optimizer).__module__.startswith("torch.optim") and not _is_adafactor(optimizer)


def _is_adafactor(optimizer: Optimizer) -> bool:
    known = type(optimizer).__module__.startswith(("torch.optim", "transformers"))
    return known and type(optimizer).__name__ == "Adafactor"
