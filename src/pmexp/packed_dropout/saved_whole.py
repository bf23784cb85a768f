"""Says why a dropped tensor is saved as it is, where rebuild.py could not have it made again."""

from typing import Any

from torch import Tensor

from pmexp.packed_dropout.graph_views import COPIES, PASSED, reads_otherwise
from pmexp.packed_dropout.origins import DROPOUTS, Origin, origin_of
from pmexp.packed_dropout.sources import scaling_of

# Nodes that put elements elsewhere, and that rebuild.py does not follow.
_MOVED = frozenset(
    f"{name}Backward0"
    for name in (
        *("ConstantPadNd", "Index", "IndexSelect", "Gather", "AsStrided", "Cat", "Stack", "Roll", "Flip"),
        *("Repeat", "Unfold", "Split", "SplitWithSizes", "Unbind", "Diagonal", "MaskedFill"),
    )
)


def is_of_torch(tensor: Tensor) -> bool:
    """Whether torch alone has a tensor's memory: what shares it, as NumPy's arrays, may change it unseen."""
    return tensor.untyped_storage().resizable()


def why_without_source(tensor: Tensor, origin: Origin) -> str:
    """Why the input of a dropout, if it is there, is no source of its result, of which `tensor` is saved."""
    if origin.input is None:
        return "its dropout wrote into its input"
    input = origin.input()
    if input is None:
        return "nobody holds the input of its dropout any more"
    if input._version != origin.input_version:
        return "the input of its dropout was changed in place"
    if not is_of_torch(input):
        return "the input of its dropout lies in memory of others, as NumPy's, who may change it unseen"
    if input.untyped_storage().nbytes() > tensor.untyped_storage().nbytes():
        return "the input of its dropout is larger, and not known to be kept anyhow"
    return "its bits are saved by other hooks"


def why_not_followed(tensor: Tensor) -> str | None:
    """Why a tensor that is made of a dropped one is not known as such; None where it is made otherwise."""
    base = tensor if tensor._base is None else tensor._base
    node: Any = base.grad_fn
    between = None
    copies = 0
    while (name := type(node).__name__) not in DROPOUTS:
        if name in _MOVED:
            between = name.partition("Backward")[0]
        elif scaling_of(node):
            between = "a product with a number"
        elif name not in PASSED:
            return None
        copies += name in COPIES
        node = node.next_functions[0][0]
    if (made_of := origin_of(node)) is None:
        return None
    if between:
        return f"{between} lies between it and its dropout"
    if reads_otherwise(tensor, base):
        return "it is a view that reads the dropped numbers as others (complex or negated ones)"
    if copies > 1 and made_of.is_unchanged():
        return "it is a copy of a copy, and what happened in between was not seen"
    return "it was changed"
