"""Keeps the values of fake tensors that follow from constants alone, such as a mask of ones.

Longformer asks its attention mask which tokens are global (any, nonzero, max) and takes shapes from the
answer, which a fake tensor does not have. A small tensor that is made of constants is therefore also computed
for real beside the fake one, and answers come from these alone. So is the answer whether a draw out of [0, 1)
lies below 0, by which models decide whether to skip a layer at a rate of 0. Every other value stays unknown,
and a model that asks for one is refused.
"""

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from pmexp.simulation.internals import (
    TorchDispatchMode,
    is_fake,
    real_tensors,
    tree_leaves,
    tree_map_only,
)

aten = torch.ops.aten
_LARGEST = 2**22  # the most elements of a tensor that is computed for real
_SHAPE_ONLY = {  # whose values do not depend on those of their first argument
    *(aten.zeros_like.default, aten.ones_like.default, aten.full_like.default),
    *(aten.new_zeros.default, aten.new_ones.default, aten.new_full.default),
}
_INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}


class KnownValues(TorchDispatchMode):
    """A context inside fake_tensors() that knows the values of tensors which it saw made of constants."""

    def __init__(self) -> None:
        super().__init__()
        self._real: Any = WeakIdKeyDictionary()  # fake tensor -> real one; a view of it -> a view of that
        self._draws: Any = WeakIdKeyDictionary()  # fake tensors that torch.rand made -> None
        self._assumed: float | None = None

    def assume(self, number: float | None) -> None:
        """Gives `number` for each unknown number that is asked for from now on; None has it refused."""
        self._assumed = number

    def know(self, fake: Tensor, real: Tensor) -> None:
        """Takes a copy of `real` for the values of `fake`, unless there are too many."""
        if real.numel() <= _LARGEST:
            with real_tensors():
                self._real[fake] = real.detach().to("cpu", copy=True)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is aten._local_scalar_dense.default and self._knows(args[0]):
            with real_tensors():
                return self._value(args[0]).item()
        if func is aten._local_scalar_dense.default and self._assumed is not None:
            return self._assumed
        if func is aten.nonzero.default and self._knows(args[0]):
            return self._places(args[0])
        if func is aten.masked_select.default and self._knows(args[1]):
            with real_tensors():
                shape = torch.broadcast_shapes(args[0].shape, args[1].shape)
                count = int(self._value(args[1]).expand(shape).sum())
            return args[0].new_empty(count)
        plain = (args[0], self._without_masks(args[1]), *args[2:]) if func in _INDEXED else args
        result = func(*plain, **kwargs)
        self._follow(func, args, kwargs, result)
        if func is aten.rand.default:
            self._draws[result] = None
        elif func is aten.lt.Scalar and args[0] in self._draws and args[1] <= 0:
            with real_tensors():
                self._real[result] = torch.tensor(False).expand(result.shape)
        return result

    def _follow(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Does to the known values what `func` did to the fake tensors."""
        if func in _SHAPE_ONLY and result.numel() <= _LARGEST:
            with real_tensors():
                args = (torch.empty(args[0].shape, dtype=args[0].dtype), *args[1:])
        tensors, made, written = _tensors((args, kwargs)), _tensors(result), _written(func, args, kwargs)
        small = all(tensor.numel() <= _LARGEST for tensor in written)
        follows = small and _is_deterministic(func) and all(self._knows(tensor) for tensor in tensors)
        if follows:
            self._make_writable(written)
        real = self._computed(func, args, kwargs, made, bool(written)) if follows else None
        if real is None:
            self._forget(written)
            return
        for fake, value in zip(made, real, strict=True):
            if is_fake(fake):
                self._real[fake] = value

    def _computed(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: list[Tensor], writes: bool
    ) -> list[Tensor] | None:
        """The real results, one for each tensor of `made`; None where they are too large to be computed."""
        args, kwargs = tree_map_only(Tensor, self._value, (args, kwargs))
        large = any(tensor.numel() > _LARGEST for tensor in (*made, *_tensors((args, kwargs))))
        pointwise = torch.Tag.pointwise in func.tags or func is aten._to_copy.default
        if large and pointwise and not writes:  # what is repeated is computed once
            with real_tensors():
                args, kwargs = tree_map_only(Tensor, _unrepeated, (args, kwargs))
            shapes = [tensor.shape for tensor in _tensors((args, kwargs))]
            large = prod(torch.broadcast_shapes(*shapes)) > _LARGEST
        if large and not func.is_view:
            return None
        with real_tensors():
            try:
                real = _tensors(func(*args, **kwargs))
            except RuntimeError:  # a repeated value has other strides than the fake tensor: no view, no write
                return None
            if func is aten.lift_fresh.default:  # a constant, which the fake tensor writes into itself
                real = [value.clone() for value in real]
            return [value.expand(fake.shape) for value, fake in zip(real, made, strict=True)]

    def _make_writable(self, written: list[Tensor]) -> None:
        """Gives each element memory of its own; what shares memory with a repeated value is forgotten."""
        for fake in written:
            value = self._value(fake)
            if _is_repeated(value):
                self._forget([fake])
                with real_tensors():
                    self._real[fake] = value.clone(memory_format=torch.contiguous_format)

    def _forget(self, written: list[Tensor]) -> None:
        """Forgets the values of all that shares memory with `written`."""
        storages = {id(tensor.untyped_storage()) for tensor in written}
        for values in (self._real, self._draws) if storages else ():
            for fake in list(values):
                if id(fake.untyped_storage()) in storages:
                    del values[fake]

    def _knows(self, tensor: Tensor) -> bool:
        return not is_fake(tensor) or tensor in self._real

    def _value(self, tensor: Tensor) -> Tensor:
        value: Tensor = self._real[tensor] if is_fake(tensor) else tensor
        return value

    def _places(self, mask: Tensor) -> Tensor:
        """nonzero() of a known tensor, as a fake tensor whose values are known."""
        with real_tensors():
            real = self._value(mask).nonzero()
        fake = torch.empty(real.shape, dtype=real.dtype)
        self._real[fake] = real
        return fake

    def _without_masks(self, indices: list[Tensor | None]) -> list[Tensor | None]:
        """Indices in which a known Boolean mask is the places where it is true, as a kernel makes them."""
        plain: list[Tensor | None] = []
        for index in indices:
            if index is not None and index.dtype is torch.bool and self._knows(index):
                places = self._places(index)
                plain.extend(places.unbind(1))
            else:
                plain.append(index)
        return plain


def _is_deterministic(func: Any) -> bool:
    return torch.Tag.nondeterministic_seeded not in func.tags and "empty" not in func.name()


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that `func` writes into."""
    names = {
        argument.name: place
        for place, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    }
    return _tensors([args[at] if at < len(args) else kwargs.get(name) for name, at in names.items()])


def _is_repeated(value: Tensor) -> bool:
    return any(stride == 0 and size > 1 for size, stride in zip(value.shape, value.stride(), strict=True))


def _unrepeated(value: Tensor) -> Tensor:
    """`value` with one of each dimension along which it does not change."""
    for dim, (size, stride) in enumerate(zip(value.shape, value.stride(), strict=True)):
        value = value.narrow(dim, 0, 1) if stride == 0 and size else value
    for dim, size in enumerate(value.shape):
        first = value.narrow(dim, 0, min(1, size))
        value = first if size and value.numel() <= _LARGEST and bool((value == first).all()) else value
    return value
