"""Defines PackedDropout, the module, and set_mode(), which sets the defaults it is made with."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pmexp.packed_dropout.functional import packed_dropout
from pmexp.packed_dropout.options import Rng, check_options
from pmexp.packed_dropout.origins import rebuildable_dropout
from pmexp.packed_dropout.recompute import remade_dropout
from pmexp.packed_dropout.route_key import BY_PYTHON, OPTIONS, drawn_by_key
from pmexp.packed_dropout.routed_modules import refuse_scripting
from pmexp.packed_dropout.routes import RecomputingRoute, Route, innermost_route
from pmexp.packed_dropout.transforms import is_rebuilding


@dataclass
class _Mode:
    bits_per_mask: int = 1
    rng: Rng = "philox"


_mode = _Mode()


def set_mode(*, bits_per_mask: int | None = None, rng: Rng | None = None) -> None:
    """Sets the defaults of every PackedDropout that is made from now on.

    Modules that exist already keep what they have. Raises ValueError for a value out of range.
    """
    bits = _mode.bits_per_mask if bits_per_mask is None else bits_per_mask
    new_rng = _mode.rng if rng is None else rng
    check_options(0.0, bits, new_rng)
    _mode.bits_per_mask, _mode.rng = bits, new_rng


class PackedDropout(nn.Dropout):
    """nn.Dropout that saves packed mask bits for backward; see `packed_dropout` for the options.

    recompute: where replace_dropout puts this module, products do not save what it has dropped, and backward
    makes it again; see rebuild.py.
    """

    dropout_may_be_replaced = True  # exchange.py reads it

    def __init__(
        self,
        p: float = 0.5,
        inplace: bool = False,
        *,
        bits: int | None = None,
        cache_unpacked: bool = True,
        rng: Rng | None = None,
        flip_rate: float = 0.0,
        recompute: bool = False,
    ) -> None:
        super().__init__(p, inplace)
        self.bits = _mode.bits_per_mask if bits is None else bits
        self.cache_unpacked = cache_unpacked
        self.rng: Rng = _mode.rng if rng is None else rng
        self.flip_rate = flip_rate
        self.recompute = recompute
        check_options(p, self.bits, self.rng, flip_rate)

    def forward(self, input: Tensor) -> Tensor:
        if self.recompute:
            return self.drop(input, self.p, self.training, self.inplace, innermost_route())
        return self.drop(input, self.p, self.training, self.inplace)

    def drop(
        self,
        input: Tensor,
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
        route: Route | None = None,
    ) -> Tensor:
        """This module's dropout with the signature of F.dropout, for functional call sites.

        route: the route of the surrounding forward, which may follow the result to the product it enters.
        """
        drop: Callable[..., Tensor] = packed_dropout
        if self.recompute:
            drop = self._remade(inplace, route)
        return drop(
            input,
            p,
            training,
            inplace,
            bits=self.bits,
            cache_unpacked=self.cache_unpacked,
            rng=self.rng,
            flip_rate=self.flip_rate,
        )

    def _remade(self, inplace: bool, route: Route | None) -> Callable[..., Tensor]:
        """What drops so that backward can make the result again."""
        if is_rebuilding():
            return rebuildable_dropout
        if inplace:
            return packed_dropout
        if isinstance(route, RecomputingRoute):
            return route.packed_dropout
        return remade_dropout if torch.compiler.is_compiling() else packed_dropout

    def __prepare_scriptable__(self) -> None:
        refuse_scripting(self)

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, bits={self.bits}, cache_unpacked={self.cache_unpacked}, rng={self.rng}"
            + f", flip_rate={self.flip_rate}" * (self.flip_rate > 0)
            + ", recompute=True" * self.recompute
        )


def _key_options(dropout: PackedDropout) -> int:
    """Says what the key of a route does for this module."""
    plain = dropout.rng == "philox" and not (dropout.flip_rate or dropout.recompute)
    return drawn_by_key(dropout.bits, dropout.cache_unpacked) if plain else BY_PYTHON


setattr(PackedDropout.drop, OPTIONS, _key_options)
