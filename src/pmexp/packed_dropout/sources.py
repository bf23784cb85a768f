"""Finds what the input of a dropout is made of, among what operations keep for backward anyhow."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pmexp.packed_dropout.graph_views import PASSED, VIEWS, Step, itself, step_of
from pmexp.packed_dropout.kept import Source, kept_by
from pmexp.packed_dropout.origins import Origin

Make = Callable[..., Tensor]
_SCALINGS: dict[str, Make] = {"MulBackward0": torch.mul, "DivBackward0": torch.div}


def source_in_graph(origin: Origin) -> Source | None:
    """Finds what an operation keeps of which the input is made by views, copies and scalings."""
    node = origin.made_by
    steps: list[Step] = []
    is_view = True
    while step := step_of(node) if type(node).__name__ in PASSED else _scaling(node):
        steps.append(step)
        is_view &= type(node).__name__ in VIEWS
        node = node.next_functions[0][0]
    if (row := _MADE_OF.get(type(node).__name__)) is None:
        return None
    names, make = row
    # A result that was kept is checked for changes when it is taken; what is computed anew or copied is not.
    if origin.input_version and not (is_view and names == ("result",)):
        return None
    kept = [kept_by(getattr(node, f"_raw_saved_{name}")) for name in names]
    shared = [each.shared() for each in kept if None not in kept and each is not None]
    return Source(shared, make(node), steps[::-1]) if shared else None


def _scaling(node: Any) -> Step | None:
    """The product with a number, or the division by one, that a node is of."""
    scale = _SCALINGS.get(type(node).__name__)
    if scale is None or kept_by(node._raw_saved_self) is not None:
        return None
    number = kept_by(node._raw_saved_other)
    if number is None or not number.is_plain or (other := number.get()).dim() or other.requires_grad:
        return None
    return lambda x: scale(x, other)


def _gelu(node: Any) -> Make:
    approximate = node._saved_approximate
    return lambda x: F.gelu(x, approximate=approximate)


# What each operation keeps of which its result is made, and how; the result itself, where it keeps that.
_MADE_OF: dict[str, tuple[tuple[str, ...], Callable[[Any], Make]]] = {
    "SoftmaxBackward0": (("result",), lambda _: itself),
    "SafeSoftmaxBackward0": (("result",), lambda _: itself),
    "ReluBackward0": (("result",), lambda _: itself),
    "TanhBackward0": (("result",), lambda _: itself),
    "SigmoidBackward0": (("result",), lambda _: itself),
    "GeluBackward0": (("self",), _gelu),
    "SiluBackward0": (("self",), lambda _: F.silu),
    "MulBackward0": (("self", "other"), lambda _: torch.mul),
}
