"""Finds what the input of a dropout is made of, among what operations keep for backward anyhow."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pmexp.packed_dropout.graph_views import PASSED, VIEWS, Step, itself, step_of
from pmexp.packed_dropout.kept import Kept, KeptInput, kept_by, kept_plainly
from pmexp.packed_dropout.origins import Origin

Make = Callable[..., Tensor]
_SCALINGS: dict[str, Make] = {"MulBackward0": torch.mul, "DivBackward0": torch.div}


def source_in_graph(origin: Origin) -> KeptInput | None:
    """Finds what an operation keeps of which the input is made by views, copies and scalings."""
    node = origin.made_by
    steps: list[Step] = []
    copies = 0  # and scalings
    while step := step_of(node) if type(node).__name__ in PASSED else scaling_of(node):
        steps.append(step)
        copies += type(node).__name__ not in VIEWS
        node = node.next_functions[0][0]
    if (row := _MADE_OF.get(type(node).__name__)) is None:
        return None
    names, make = row
    kept = [each for name in names if (each := kept_by(getattr(node, f"_raw_saved_{name}"))) is not None]
    if len(kept) == len(names) and _is_unchanged(origin, node, copies, kept[0] if make is _result else None):
        return KeptInput([each.shared() for each in kept], make(node), steps[::-1])
    return None


def _is_unchanged(origin: Origin, node: Any, copies: int, result: Kept | None) -> bool:
    """Whether nobody has changed what `node` made, nor what lies between that and the dropout's input.

    copies: how many tensors, apart from views, were made on the way to the input, which is the last of them.
    result: what `node` made, if that is kept.
    """
    version = 0 if result is None else result.version
    if origin.input_version != (0 if copies else version):
        return False
    if copies == 0 or (copies == 1 and result is not None and result.is_unchanged()):
        return True
    return origin.making is not None and origin.making.leads_to(node, version)


def scaling_of(node: Any) -> Step | None:
    """Returns the product with a number, or the division by one, that a node is of; None for others."""
    scale = _SCALINGS.get(type(node).__name__)
    if scale is None or kept_by(node._raw_saved_self) is not None:
        return None
    number = kept_by(node._raw_saved_other) or _python_number(node._raw_saved_other)
    if number is None or not (number.is_plain and number.is_unchanged()):
        return None
    if (other := number.get()).dim() or other.requires_grad:
        return None
    return lambda x: scale(x, number.get())  # which raises where it was changed since


def _python_number(raw: Any) -> Kept | None:
    """The number that torch wrapped in a tensor and saved past all hooks; None for what else was saved."""
    try:
        saved = raw.data
    except RuntimeError:  # it was freed
        return None
    if type(saved) is not Tensor or saved.dim() or saved.dtype not in (torch.float64, torch.int64):
        return None
    narrow = torch.bfloat16 if saved.dtype.is_floating_point else torch.int8
    is_wrapped = torch.result_type(torch.empty((), dtype=narrow), saved) == narrow  # a tensor's dtype counts
    return kept_plainly(saved, saved._version) if is_wrapped else None


def _result(node: Any) -> Make:
    return itself


def _gelu(node: Any) -> Make:
    return _by_as_many_threads(partial(F.gelu, approximate=node._saved_approximate))


def _silu(node: Any) -> Make:
    return _by_as_many_threads(F.silu)


def _by_as_many_threads(function: Make) -> Make:
    """Returns the function as it is computed now.

    On the CPU the threads' shares decide which elements end a vector, and these are computed by other code,
    whose last bit may differ.
    """
    threads = torch.get_num_threads()

    def make(x: Tensor) -> Tensor:
        threads_now = torch.get_num_threads()
        if threads_now == threads or not x.is_cpu:
            return function(x)
        torch.set_num_threads(threads)
        try:
            return function(x)
        finally:
            torch.set_num_threads(threads_now)

    return make


# What each operation keeps of which its result is made, and how; the result itself, where it keeps that.
_MADE_OF: dict[str, tuple[tuple[str, ...], Callable[[Any], Make]]] = {
    "SoftmaxBackward0": (("result",), _result),
    "SafeSoftmaxBackward0": (("result",), _result),
    "ReluBackward0": (("result",), _result),
    "TanhBackward0": (("result",), _result),
    "SigmoidBackward0": (("result",), _result),
    "GeluBackward0": (("self",), _gelu),
    "SiluBackward0": (("self",), _silu),
    "MulBackward0": (("self", "other"), lambda _: torch.mul),
}
