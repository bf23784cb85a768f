"""Declares the keys of `variant.*`: what stands in the place of dropout, and how."""

from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from omegaconf import MISSING

from pmexp.config.checks import check_at_least, check_between, check_name
from pmexp.errors import UserError
from pmexp.own_code import check_import_path, is_import_path
from pmexp.variants.table import DROPOUTS, Entry

# These say which dropout it is and at which rate the model drops; the others are options of the dropout.
_NO_OPTIONS = ("name", "dropout", "apply", "p", "mask_stream")
_OPTIONS_OF_OWN = ("where",)  # a dropout of one's own takes these beside variant.options


class Where(Enum):
    """Names the places whose dropout is replaced."""

    all = "all"
    attention = "attention"
    hidden = "hidden"


class Rng(Enum):
    """Names the generators that packed masks are drawn by."""

    philox = "philox"
    torch = "torch"


@dataclass(kw_only=True)
class VariantConfig:
    """Chooses a dropout of `variants/table.py` or of one's own, the options that it takes, and a method."""

    name: str = ""  # how the report calls it; empty: after the code of one's own that it names
    dropout: str = MISSING  # stock, byte_mask, hooks, packed, forward_unpack, seeded, or mypkg.MyDropout
    apply: str | None = None  # mypkg.my_method: a function of the model, called once dropout is in place
    options: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the code of one's own
    where: Where = Where.all
    p: float | None = None  # dropout rate of every place; null keeps the model's own rates
    mask_stream: int | None = None  # 1, 2, ...: other masks of the same seed; null: its own
    bits: int = 1  # width of a stored mask value
    rng: Rng = Rng.philox
    cache_unpacked: bool = True  # a kept graph unpacks each mask once, not at every backward
    flip_rate: float = 0.0  # share of the stored bits flipped before backward
    recompute: bool = False  # products do not save dropped operands: backward makes them again

    def __post_init__(self) -> None:
        """Checks the values, and puts options that the dropout does not take back to their defaults.

        So a sweep over options of one dropout runs the others once, and the record holds what ran. Where no
        run of a command takes an option that was typed, the command refuses it (`RunConfig.unused`).
        """
        self._check_own_code()
        check_name("variant.name", self.name)
        if self.p is not None:
            check_between("variant.p", self.p, 0.0, 1.0)
        if self.mask_stream is not None:
            check_at_least("variant.mask_stream", self.mask_stream, 1)
        if self.bits not in (1, 2, 4):
            raise UserError(f"variant.bits: {self.bits} is not a width; allowed are 1, 2 and 4")
        check_between("variant.flip_rate", self.flip_rate, 0.0, 1.0)
        for each in fields(self):
            if not self.takes(each.name):
                setattr(self, each.name, {} if each.name == "options" else each.default)

    @property
    def own_code(self) -> dict[str, str]:
        """The import paths of the code of one's own, by their keys."""
        paths = {"variant.dropout": self.dropout, "variant.apply": self.apply}
        return {key: path for key, path in paths.items() if path and path not in DROPOUTS}

    def takes(self, key: str) -> bool:
        """Whether this variant goes by the key `variant.<key>`."""
        if key.partition(".")[0] == "options":
            return bool(self.own_code)
        return key in _NO_OPTIONS or key in self.entry.takes

    @property
    def entry(self) -> Entry:
        """What is known of the dropout; of one's own, only that `replace_dropout` knows its places."""
        return DROPOUTS.get(self.dropout) or Entry(self.dropout, _OPTIONS_OF_OWN)

    @property
    def replacing(self) -> dict[str, Any]:
        """The options that the dropout takes, as plain values: keyword arguments of replace_dropout."""
        values = {key: getattr(self, key) for key in self.entry.takes}
        own = self.options if self.dropout not in DROPOUTS else {}
        plain = {key: value.value if isinstance(value, Enum) else value for key, value in values.items()}
        return plain | own

    def _check_own_code(self) -> None:
        if self.dropout not in DROPOUTS and not is_import_path(self.dropout):
            raise UserError(
                f"variant.dropout: {self.dropout!r} is no dropout; allowed are {', '.join(DROPOUTS)}, and "
                "the import path of a class of your own, such as mypkg.MyDropout"
            )
        if self.apply is not None:
            check_import_path("variant.apply", self.apply)
        own = self.own_code
        if len(own) > 1:
            raise UserError(
                f"variant.apply: {self.apply} and variant.dropout={self.dropout} would share "
                "variant.options; let the function replace the dropout itself, with variant.dropout=stock"
            )
        if not (own or self.name):
            raise UserError(
                "variant.name: '' is not a name, and there is no code of your own to be called after; add "
                "variant.dropout=mypkg.MyDropout or variant.apply=mypkg.my_method"
            )
        self.name = self.name or next(iter(own.values())).rpartition(".")[2]
        if "where" in self.options:
            raise UserError("variant.options.where: places are chosen by variant.where; set that")
