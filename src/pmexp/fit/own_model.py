"""Predicts the peak of a training step of a model of one's own, without a GPU, and what could lower it."""

import copy
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from pmexp.errors import UserError
from pmexp.fit.eight_bits import eight_bits_in_place_of
from pmexp.fit.forecast import Forecast, StepPeak, categories
from pmexp.fit.methods import EIGHT_BITS, checked, known, made, with_part
from pmexp.fit.trainer import batch_of_size, optimizer_of, parts_of
from pmexp.shown import class_of
from pmexp.simulation import NOT_MODELLED
from pmexp.simulation.cuda_kernels import widened
from pmexp.simulation.internals import tree_map_only
from pmexp.simulation.own_step import OwnStep, simulated_step

COMPARED = ("packed", "rebuilt", "checkpointing", "offload", "bf16", EIGHT_BITS)
_CALLABLE = {
    "loss": "a function of output and target, such as torch.nn.functional.cross_entropy, and None",
    "optimizer": "a class such as torch.optim.SGD, a function of the parameters, an optimizer, and None",
}


def predict(
    model: nn.Module,
    batch: Any,
    *,
    loss: Callable[..., Tensor] | None = None,
    optimizer: Optimizer | Callable[[Any], Optimizer] | None = None,
    parts: Sequence[str] = (),
    accumulate: int = 1,
    clip_norm: float | None = 1.0,
    arguments: Any = None,
    methods: Sequence[str] = COMPARED,
    like: str = "cuda",
) -> Forecast:
    """Predicts the peak memory of a training step, by category, and what each method would save at what cost.

    The step runs on fake tensors in a copy of the model, all layers of it: nothing of `model` is moved,
    changed or run, and no memory is taken. It may be on any device, meta included. Modules that are in eval
    mode stay in it, unless all of the model is, or `arguments` are given: then all train.

    Args:
        model: any module. Its own dropout, checkpointing and dtypes count as they are.
        batch: one micro-batch. A mapping gives the model's arguments by name, a sequence by position, and a
            tensor is the only one. Values of small tensors may decide what runs, those of meta tensors not.
        loss: takes the model's output and the batch's target: its "labels", or the last of a sequence, which
            the model then does not get. For a batch that is a tensor it takes the output alone. Without it
            the model returns its loss, by the name "loss", first, or alone.
        optimizer: makes the optimizer of a list of parameters, such as a class of torch.optim; or one that
            exists, of the model's parameters. Without it AdamW.
        parts: what the step has beside the model: byte-mask, seed-only, packed or rebuilt (dropout); tempo,
            checkpointing, offload; bf16 or fp16 (autocast); 8bit-optimizer.
        accumulate: micro-batches a step.
        clip_norm: None leaves gradients as they are.
        arguments: transformers.TrainingArguments, which say the samples of the batch, whose rows are then
            repeated to their number, and accumulation, clipping, precision, checkpointing and optimizer.
        methods: each is simulated as one part more.
        like: "cuda", or "cpu" for the CPU's operators.

    Raises:
        UserError: an argument is wrong, or the step cannot be simulated.
    """
    _check_arguments(model, loss, optimizer, accumulate, clip_norm, like)
    parts, methods = checked(parts), known(methods, "methods")
    if arguments is not None:
        if optimizer is not None or accumulate != 1:
            raise UserError(
                "arguments: they say optimizer and accumulation; leave optimizer= and accumulate= out"
            )
        parts = checked((*parts, *(part for part in parts_of(arguments) if part not in parts)))
        optimizer = optimizer_of(arguments)
        accumulate, clip_norm = arguments.gradient_accumulation_steps, arguments.max_grad_norm or None
        batch = batch_of_size(_plain(batch), arguments.per_device_train_batch_size)
    asking = _Asking(model, _plain(batch), loss, optimizer or AdamW, accumulate, clip_norm, arguments, like)
    asked = asking.step(parts)
    steps, without_effect = asking.steps_with(methods, parts)
    return Forecast(
        type(model).__name__, parts, asked, steps, without_effect, NOT_MODELLED, not model.training
    )


def _check_arguments(
    model: Any, loss: Any, optimizer: Any, accumulate: Any, clip_norm: Any, like: Any
) -> None:
    """Raises UserError for an argument of `predict` that is none of what it takes."""
    if not isinstance(model, nn.Module):
        raise UserError(f"model: {type(model).__name__} is no torch.nn.Module")
    if like not in ("cuda", "cpu"):
        raise UserError(f"like: {like!r} is unknown; allowed are cuda, cpu")
    if not isinstance(accumulate, int) or accumulate < 1:
        raise UserError(f"accumulate: {accumulate!r} is not allowed; allowed are 1, 2, ...")
    if clip_norm is not None and not (isinstance(clip_norm, int | float) and clip_norm > 0):
        raise UserError(f"clip_norm: {clip_norm!r} is not allowed; allowed are positive numbers, and None")
    for name, given in {"loss": loss, "optimizer": optimizer}.items():
        if not (given is None or callable(given) or (name == "optimizer" and isinstance(given, Optimizer))):
            shown = repr(given) if isinstance(given, str) else class_of(given)
            raise UserError(f"{name}: {shown} is not allowed; allowed are {_CALLABLE[name]}")


@dataclass(frozen=True)
class _Asking:
    """The arguments of `predict`, of which steps with other parts are made."""

    model: nn.Module
    batch: Any
    loss: Callable[..., Tensor] | None
    optimizer: Optimizer | Callable[[Any], Optimizer]
    accumulate: int
    clip_norm: float | None
    arguments: Any  # transformers.TrainingArguments, or None
    like: str

    def step(self, parts: Sequence[str]) -> StepPeak:
        """Simulates the step with these parts. Raises UserError."""
        methods = made(parts)

        def prepare(model: nn.Module) -> None:
            if self.arguments is not None or not model.training:  # a Trainer has all modules train
                model.train()
            for method in methods:
                method.prepare(model)

        simulated = simulated_step(
            OwnStep(
                self.model,
                self.batch,
                self._loss_of,
                partial(self._optimizer_of, in_8_bits=EIGHT_BITS in parts),
                prepare,
                [method.context for method in methods],
                self.accumulate,
                self.clip_norm,
            ),
            self.like,
        )
        note = ", ".join(said for method in methods if (said := method.note()))
        held = categories(simulated.peaks[simulated.phase].by_category)
        return StepPeak(held, simulated.phase, simulated.products, simulated.traffic_bytes, note)

    def steps_with(
        self, methods: Sequence[str], parts: Sequence[str]
    ) -> tuple[dict[str, StepPeak], dict[str, str]]:
        """Simulates the step with each method beside these parts, and says why the others have none."""
        steps, without_effect = {}, {}
        for method in methods:
            if method not in parts:
                try:
                    steps[method] = self.step(with_part(parts, method))
                except UserError as error:
                    without_effect[method] = str(error)
        return steps, without_effect

    def _loss_of(self, model: nn.Module, batch: Any) -> Tensor:
        inputs, target = (batch, ()) if self.loss is None else _without_target(batch)
        output = _called(model, inputs)
        if self.arguments is not None:  # under autocast a Trainer's model gives float32
            output = tree_map_only(Tensor, widened, output)
        loss = _own_loss(output) if self.loss is None else self.loss(output, *target)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise UserError(
                "loss: the model returns none for this batch; give it labels in the batch, or give loss="
                if self.loss is None
                else "loss: it returned no tensor of one element"
            )
        return loss

    def _optimizer_of(self, model: nn.Module, copies: dict[int, Any], in_8_bits: bool) -> Optimizer:
        if isinstance(self.optimizer, Optimizer):
            optimizer = _copied(self.optimizer, copies)
        else:
            optimizer = self.optimizer([p for p in model.parameters() if p.requires_grad])
            if not isinstance(optimizer, Optimizer):
                raise UserError(
                    f"optimizer: it returned {class_of(optimizer)}; return a torch.optim.Optimizer"
                )
        if in_8_bits:
            return eight_bits_in_place_of(optimizer, model, embeddings_too=self.arguments is None)
        return optimizer


def _called(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def _own_loss(output: Any) -> Any:
    if isinstance(output, Mapping):
        return output.get("loss")
    if isinstance(output, tuple | list) and output:
        return output[0]
    return getattr(output, "loss", output)


def _without_target(batch: Any) -> tuple[Any, tuple[Any, ...]]:
    """What the model gets, and what the loss gets beside its output. Raises UserError."""
    if isinstance(batch, Mapping):
        if "labels" not in batch:
            raise UserError(
                f'loss: it needs a target, and the batch has no "labels" among {", ".join(batch)}'
            )
        return {name: value for name, value in batch.items() if name != "labels"}, (batch["labels"],)
    if isinstance(batch, tuple):
        if len(batch) < 2:
            raise UserError("loss: it needs a target, and the batch has one entry; give (input, ..., target)")
        return batch[:-1], (batch[-1],)
    return batch, ()


def _plain(batch: Any) -> Any:
    """The batch as a dict, a tuple or a tensor. Raises UserError for anything else."""
    if isinstance(batch, Mapping):
        return dict(batch)
    if isinstance(batch, tuple | list):
        return tuple(batch)
    if isinstance(batch, Tensor):
        return batch
    raise UserError(
        f"batch: {type(batch).__name__} is not allowed; allowed are a mapping, a sequence and a tensor"
    )


def _copied(optimizer: Optimizer, copies: dict[int, Any]) -> Optimizer:
    """An optimizer like this one of the copied parameters, without state."""
    if any(id(parameter) not in copies for group in optimizer.param_groups for parameter in group["params"]):
        raise UserError("optimizer: it has parameters that the model does not have")
    return copy.deepcopy(optimizer, {**copies, id(optimizer.state): defaultdict(dict)})
