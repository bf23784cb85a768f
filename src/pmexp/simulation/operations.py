"""Counts the floating-point operations of a training step that never ran, on fake tensors."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from torch import nn

from pmexp.measure.flops import FlopCounter
from pmexp.simulation.internals import fake_tensors
from pmexp.simulation.known_values import KnownValues
from pmexp.simulation.predict import Shapes, batch_of, built, cut_to, give_fake_tensors, longest_list_of

_LAYERS = (2, 3)  # simulated of a deep model: each layer more adds the same


def operations(
    build: Callable[[], nn.Module],
    shapes: Shapes,
    prepare: Callable[[nn.Module], object],
    forward: Callable[[], AbstractContextManager[object]],
) -> int:
    """Counts matrix products and attention of forward and backward, and what checkpointing runs again.

    The arguments are those of `predict`.
    """
    whole = built(build)
    depth = len(longest_list_of(whole))
    if depth <= _LAYERS[1]:
        return _counted(whole, shapes, prepare, forward)
    fewer, more = (_counted(each, shapes, prepare, forward) for each in cut_to(whole, _LAYERS))
    return fewer + (depth - _LAYERS[0]) * (more - fewer)


def _counted(
    module: nn.Module,
    shapes: Shapes,
    prepare: Callable[[nn.Module], object],
    forward: Callable[[], AbstractContextManager[object]],
) -> int:
    with fake_tensors(), KnownValues():
        give_fake_tensors(module)
        prepare(module)
        module.train()
        inputs, _ = batch_of(shapes)
        with FlopCounter() as counter:
            with forward():
                logits = module(**inputs).logits
            logits.float().sum().backward()
    return counter.total
