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
def removing_seen(module: nn.Module, waiting: list[str], still: list[str]) -> Iterator[None]:
    """Removes from `waiting`, names of parameters, those that a backward inside gives a gradient, and from
    `still` those that it gives one that is not all zeros.

    Hooks see them, since an optimizer that updates during backward leaves none; FSDP swaps the parameters
    before the hooks and leaves their gradients, which are not asked for zeros.
    """
    if not waiting and not still:
        yield
        return
    seen: dict[str, bool] = {}  # whether it had a number but 0
    before = dict(module.named_parameters())
    hooks = [before[name].register_hook(partial(_note, seen, name)) for name in {*waiting, *still}]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    after = dict(module.named_parameters())
    by_others = {name for name in {*waiting, *still} - set(seen) if after[name].grad is not None}
    waiting[:] = [name for name in waiting if name not in seen and name not in by_others]
    still[:] = [name for name in still if not seen.get(name) and name not in by_others]


def _note(seen: dict[str, bool], name: str, gradient: Tensor) -> None:
    is_plain = type(gradient) is Tensor and gradient.layout is torch.strided
    seen[name] = seen.get(name, False) or not is_plain or bool(gradient.any())


def untrainable(system: System, method: Method) -> UserError:
    """Returns what to say of a loss that needs no gradient: where gradients are turned off, if they are."""
    if not torch.is_grad_enabled():
        return UserError(
            "gradients are turned off for the whole process, as by torch.set_grad_enabled(False) in code of "
            "your own, such as a metric; leave it out, or take torch.no_grad() around what needs none"
        )
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
