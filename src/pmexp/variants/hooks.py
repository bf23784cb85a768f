"""Has the forward of a model run under pack_saved_masks(): hooks pack the masks, whatever op saves them."""

import threading
from contextlib import AbstractContextManager
from typing import Any

from torch import nn

from pmexp.packed_dropout import ReplacementReport, pack_saved_masks


def run_under_packing(model: nn.Module, report: ReplacementReport) -> None:
    """Has every later forward of `model` pack the Boolean tensors it saves, and says so in `report`.

    Copies and pickles of the model do so too. What a checkpointed region runs again in backward is not
    packed: it is out of the model's forward, and keeps the byte masks of that one region.
    """
    report.by += " under pack_saved_masks"
    model.register_forward_pre_hook(_enter)
    model.register_forward_hook(_leave, always_call=True)


class _Entered(threading.local):
    """Holds the forwards that run in this thread, each with its context."""

    def __init__(self) -> None:
        self.forwards: list[tuple[nn.Module, AbstractContextManager[None]]] = []


_entered = _Entered()


def _enter(module: nn.Module, args: Any) -> None:
    context = pack_saved_masks()
    context.__enter__()
    _entered.forwards.append((module, context))


def _leave(module: nn.Module, args: Any, output: Any) -> None:
    """Closes the context of a forward, also of one that failed, maybe before it came to `_enter`."""
    if _entered.forwards and _entered.forwards[-1][0] is module:
        _entered.forwards.pop()[1].__exit__(None, None, None)
