"""Finds the module and the line of code behind an operator that draws random numbers, and how many."""

import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

_TORCH = str(Path(torch.__file__).parent)
_STDLIB = sysconfig.get_path("stdlib")
_HERE = str(Path(__file__).parent)
_INSTALLED = ("site-packages", "dist-packages")  # these may lie in the folder of the standard library
_PLUMBING = tuple(
    f"{_HERE}/{name}.py"
    for name in ("draws", "discovery", "routes", "routed_modules", "keyed_routes", "route_key", "attention")
)
_RATES = ("dropout_p", "dropout", "p")
_SWITCHES = ("train", "training")


@dataclass(frozen=True)
class Draw:
    """Describes one draw of random numbers; `ours` says that a dropout of this package drew."""

    place: str  # the qualified name of the innermost module that runs
    by: str  # the function of torch that drew
    elements: int
    line: str  # the innermost code outside torch and this package, as "folder/file.py:12"
    ours: bool = False
    in_checkpoint: bool = False  # whether a function drew that the forward of `place` gave to a checkpoint
    each_sample: bool = False  # whether it is one number for each sample of a batch, as to drop whole ones

    def __str__(self) -> str:
        if self.each_sample:
            return (
                f"{self.by} draws one number a sample at {self.line}, which drops whole ones: nothing to pack"
            )
        inside = "inside its kernel " if "attention" in self.by else ""
        where = (
            " in a function given to a checkpoint, which runs without its module's route" * self.in_checkpoint
        )
        return f"{self.by} draws {inside}at {self.line}{where}, {self.elements:,} elements"


def drawn_elements(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    """How many elements get a random number from an operator tagged as random; 0 where its rate is 0."""
    if func is torch.ops.aten._fused_sdp_choice.default:  # it says which kernel would draw
        return 0
    named = {
        argument.name: argument.default_value
        for argument in func._schema.arguments
        if argument.has_default_value()
    }
    named |= dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    if any(named.get(name) == 0.0 for name in _RATES if isinstance(named.get(name), float)):
        return 0
    if any(named.get(name) is False for name in _SWITCHES):
        return 0
    query, key = named.get("query"), named.get("key")
    if isinstance(query, Tensor) and isinstance(key, Tensor):
        return query[..., 0].numel() * key.shape[-2]
    return max((leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)), default=0)


def is_for_each_sample(result: Any) -> bool:
    """Whether a draw's result has its first dimension alone, and could be multiplied with a batch."""
    return isinstance(result, Tensor) and result.dim() > 1 and result.numel() == result.shape[0]


def origin_of_draw(names: dict[int, str], by: str, elements: int, each_sample: bool = False) -> Draw:
    """Returns the draw of the operator that was just called, with the module and line found on the stack.

    names: the modules' names in the model, by identity.
    """
    place = line = None
    ours = in_checkpoint = checkpoint_below = False
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and place is None:
        code = frame.f_code
        file = code.co_filename
        if line is None and not ours and not _is_plumbing(file, code.co_name):
            ours = file.startswith(_HERE)
            line = None if ours else f"{'/'.join(Path(file).parts[-2:])}:{frame.f_lineno}"
        checkpoint_below |= file.startswith(_TORCH) and file.endswith("checkpoint.py")
        if code.co_varnames[:1] == ("self",) and code.co_argcount:
            place = names.get(id(frame.f_locals.get("self")))
            in_checkpoint = checkpoint_below and place is not None
        frame = frame.f_back
    return Draw(place or "", by, elements, line or "torch", ours, in_checkpoint, each_sample)


def _is_plumbing(file: str, function: str) -> bool:
    """Whether `function` in `file` only calls what somebody else wrote."""
    if function in ("__torch_function__", "__torch_dispatch__"):
        return True
    if file.startswith(_STDLIB):
        return file.startswith(_TORCH) or not any(f"/{name}/" in file for name in _INSTALLED)
    return file.startswith((_TORCH, "<frozen", *_PLUMBING))
