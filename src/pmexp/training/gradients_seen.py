"""Sees which parameters get a gradient: a method that detaches trains others than the model has."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from pmexp.errors import UserError
from pmexp.systems.system import System
from pmexp.variants.method import Method


def trained_names(module: nn.Module) -> list[str]:
    """Returns the names of the parameters that are not frozen."""
    return [name for name, each in module.named_parameters() if each.requires_grad]


@contextmanager
def removing_seen(module: nn.Module, waiting: list[str]) -> Iterator[None]:
    """Removes from `waiting`, names of parameters, those that a backward inside gives a gradient.

    Hooks see them, since an optimizer that updates during backward leaves none; FSDP swaps the parameters
    before the hooks and leaves their gradients.
    """
    if not waiting:
        yield
        return
    seen: set[str] = set()
    before = dict(module.named_parameters())
    hooks = [before[name].register_hook(partial(_note, seen, name)) for name in waiting]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    after = dict(module.named_parameters())
    waiting[:] = [name for name in waiting if name not in seen and after[name].grad is None]


def _note(seen: set[str], name: str, _: Tensor) -> None:
    seen.add(name)


def untrainable(system: System, method: Method) -> UserError:
    """Returns what to say of a loss that needs no gradient: where gradients are turned off, if they are."""
    with system.forward():
        if not torch.is_grad_enabled():
            return UserError(
                "system.own_parts: the forward of a part turns gradients off, and nothing can be trained; "
                "return another context"
            )
        with method.around_forward():
            if not torch.is_grad_enabled():
                return UserError(
                    "variant.apply: the method's forward turns gradients off, and nothing can be trained; "
                    "return another context, such as saved_tensors_hooks(...)"
                )
    return UserError(
        "variant.apply, model.builder: the model's logits need no gradient, and nothing can be trained; "
        "leave out what detaches them, such as torch.no_grad or .detach()"
    )
