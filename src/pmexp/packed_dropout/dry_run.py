"""Runs a copy of a model on fake tensors to see what it calls, which changes nothing of the model."""

import copy
import logging
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._pytree import tree_map_only

from pmexp.packed_dropout.discovery import Discovery, observed
from pmexp.packed_dropout.report import KERNEL_UNSEEN
from pmexp.packed_dropout.routed_modules import WATCH

log = logging.getLogger(__name__)


def run_dry(model: nn.Module, discovery: Discovery, example: Mapping[str, Any] | Sequence[Any]) -> None:
    """Settles `discovery` by a forward in training of a copy of `model`.

    A model that asks for the values of its tensors cannot run so, and stays as it is.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    positional, named = ((), example) if isinstance(example, Mapping) else (example, {})
    try:
        with _python_generators_kept(), without_torchs_log():
            with FakeCopyMode(mode):
                twin = copy.deepcopy(model).train()
            args, kwargs = tree_map_only(torch.Tensor, mode.from_tensor, (tuple(positional), dict(named)))
            seen = getattr(twin, WATCH).discovery
            with mode, torch.enable_grad(), _uncompiled(), observed(seen, twin, dry=True) as run:
                twin(*args, **kwargs)
    except Exception as error:
        log.info("no dry run of %s: %s", discovery.model, str(error).partition("\n")[0])
        return
    for child in (*run.sent_to.values(), *run.attention.values()):
        if child is not None:  # it was made for the copy and holds no tensors, so the model can take it
            child.train(model.training)
    for name, kernel in seen.report.attention.items():
        if kernel != KERNEL_UNSEEN:
            discovery.report.attention_ran(name, kernel)
    discovery.settle(run, dict(model.named_modules(remove_duplicate=False)), whole=True)


@contextmanager
def without_torchs_log() -> Iterator[None]:
    """Keeps torch from printing a traceback of its own for an operator that fails on fake tensors."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _uncompiled() -> AbstractContextManager[Any]:
    """Has what torch.compile was given run as it is written, since nothing is seen inside of a graph."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def _python_generators_kept() -> Iterator[None]:
    """Puts Python's and numpy's generators back, since a forward may draw from them even on fake tensors."""
    numpy = sys.modules.get("numpy")  # a model that draws from it has imported it
    states = random.getstate(), numpy.random.get_state() if numpy else None
    try:
        yield
    finally:
        random.setstate(states[0])
        if numpy:
            numpy.random.set_state(states[1])
