"""Lists every dropout that a variant can put into a model: its class, and the options that it takes.

This is the only table of them; `variant.dropout` takes the import path of a class of one's own as well. It
names classes and imports none: configurations read it without torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any


@dataclass(frozen=True)
class Entry:
    """Says what one dropout is made of; two equal entries would be one dropout."""

    cls: str  # a subclass of nn.Dropout, as module:name
    takes: tuple[str, ...] = ()  # keys of `variant.*` that it goes by; every other key keeps its default
    keeping: tuple[str, ...] = ()  # those of them that say how masks are kept: no value changes a training
    then: str | None = None  # module:name of a function that gets the model and the report at the end

    def load(self) -> tuple[Any, Callable[..., None] | None]:
        """Imports and returns the class, and the function to call after the replacement, or None.

        Raises ImportError or AttributeError where the table names what is not there.
        """
        return resolve_name(self.cls), resolve_name(self.then) if self.then else None


_PACKED = "pmexp.packed_dropout:PackedDropout"
_BYTE_MASK = "pmexp.variants.byte_mask:ByteMaskDropout"


DROPOUTS = {  # by their names in `variant.dropout`; all go by `variant.p`, which sets the model's rates
    "stock": Entry("torch.nn:Dropout"),
    "byte_mask": Entry(_BYTE_MASK, ("where",)),
    "hooks": Entry(_BYTE_MASK, ("where",), then="pmexp.variants.hooks:run_under_packing"),
    "packed": Entry(
        _PACKED,
        ("where", "bits", "rng", "cache_unpacked", "flip_rate", "recompute"),
        keeping=("bits", "cache_unpacked", "recompute"),
    ),
    "forward_unpack": Entry("pmexp.variants.forward_unpack:ForwardUnpackDropout", ("where",)),
    "seeded": Entry("pmexp.variants.seeded:SeededDropout", ("where",)),
}
