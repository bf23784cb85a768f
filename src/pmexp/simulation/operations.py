"""Counts the floating-point operations of a training step that never ran, on fake tensors."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from torch import nn

from pmexp.measure.flops import FlopCounter
from pmexp.simulation.internals import fake_tensors
from pmexp.simulation.known_values import KnownValues
from pmexp.simulation.predict import Shapes, batch_of, built, give_fake_tensors, longest_list_of

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
    depth = len(longest_list_of(built(build)))
    if depth <= _LAYERS[1]:
        return _counted(build, depth, shapes, prepare, forward)
    fewer, more = (_counted(build, count, shapes, prepare, forward) for count in _LAYERS)
    return fewer + (depth - _LAYERS[0]) * (more - fewer)


def _counted(
    build: Callable[[], nn.Module],
    layers: int,
    shapes: Shapes,
    prepare: Callable[[nn.Module], object],
    forward: Callable[[], AbstractContextManager[object]],
) -> int:
    module = built(build)
    del longest_list_of(module)[layers:]
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
