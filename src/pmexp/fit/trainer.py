"""Reads what transformers' TrainingArguments say of a step: samples, parts and optimizer."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import AdamW, Optimizer

from pmexp.errors import UserError
from pmexp.fit.methods import EIGHT_BITS
from pmexp.simulation.internals import tree_leaves, tree_map_only

_EIGHT_BITS = ("adamw_bnb_8bit", "adamw_8bit")
_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop", *_EIGHT_BITS)
_CHECKPOINTING = ("activation_checkpointing", "gradient_checkpointing")  # transformers 5.23 has the first one
# Arguments that change a step in ways that are not simulated, and the values at which they do not.
_LEFT_OUT: dict[str, tuple[Any, ...]] = {
    "deepspeed": (None,),
    "fsdp": (None, "", [], {}, False),
    "parallelism_config": (None,),
    "torch_compile": (False,),
    "use_liger_kernel": (False,),
    "label_smoothing_factor": (0, 0.0),
    "neftune_noise_alpha": (None,),
    "optim_target_modules": (None,),
    "optim_args": (None,),
}


def parts_of(arguments: Any) -> tuple[str, ...]:
    """Returns the parts that they switch on. Raises UserError for what is not simulated."""
    for name, plain in _LEFT_OUT.items():
        value = getattr(arguments, name, plain[0])
        if value not in plain:
            raise UserError(f"arguments.{name}: {value!r} is not simulated; allowed is {plain[0]!r}")
    name = next(name for name in _CHECKPOINTING if hasattr(arguments, name))
    if (getattr(arguments, f"{name}_kwargs") or {}).get("use_reentrant"):
        raise UserError(f"arguments.{name}_kwargs: use_reentrant=True is not simulated; allowed is False")
    switched = {"bf16": arguments.bf16, "fp16": arguments.fp16, "checkpointing": getattr(arguments, name)}
    parts = tuple(part for part, on in switched.items() if on)
    return (*parts, EIGHT_BITS) if _name(arguments) in _EIGHT_BITS else parts


def optimizer_of(arguments: Any) -> Callable[[Any], Optimizer]:
    """Returns what makes the Trainer's optimizer. Raises UserError for one that is not simulated."""
    from transformers import Trainer

    name = _name(arguments)
    if name not in _OPTIMIZERS:
        raise UserError(f"arguments.optim: {name!r} is not simulated; allowed are {', '.join(_OPTIMIZERS)}")
    if name in _EIGHT_BITS:
        return AdamW
    made, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
    return lambda parameters: made(parameters, **options)


def batch_of_size(batch: Any, samples: int) -> Any:
    """Returns the batch with so many samples, by repeating its rows or leaving some out.

    Raises UserError where its tensors do not share a first dimension.
    """
    sizes = {leaf.shape[0] for leaf in tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.dim()}
    if len(sizes) != 1 or 0 in sizes:
        raise UserError(
            f"batch: its tensors have {sorted(sizes)} rows, so its samples cannot be counted for "
            "arguments.per_device_train_batch_size; give tensors of one sample a row"
        )
    repeats = -(-samples // sizes.pop())

    def resized(tensor: Tensor) -> Tensor:
        return (
            tensor.repeat(repeats, *[1] * (tensor.dim() - 1))[:samples].contiguous()
            if tensor.dim()
            else tensor
        )

    return tree_map_only(Tensor, resized, batch)


def _name(arguments: Any) -> str:
    return str(getattr(arguments.optim, "value", arguments.optim))
