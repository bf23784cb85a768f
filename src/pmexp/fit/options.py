"""The keys of the command, checked. Imports no torch: a wrong key is answered at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pmexp.command.keys import one_of, own_keys, path_of
from pmexp.errors import UserError

METHODS = ("simulate", "measure")
WHATS = ("batch", "length")
_KEYS = ("method", "what", "budget_gb", "global_batch", "table", "out")
_GB = 10**9


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    method: str
    what: str  # of these the largest that fits is searched
    budget_bytes: int
    global_batch: int | None  # samples a step; micro-batches divide it
    table: Path | None
    out: Path | None
    overrides: tuple[str, ...]  # of the run configuration


def fit_options(arguments: Sequence[str]) -> FitOptions:
    """Raises UserError for a wrong value; what is not a key of this command is an override of the run."""
    given, others = own_keys(arguments, _KEYS)
    options = FitOptions(
        method=one_of("method", given.get("method", "simulate"), METHODS),
        what=one_of("what", given.get("what", "batch"), WHATS),
        budget_bytes=round(_positive("budget_gb", given.get("budget_gb", "80")) * _GB),
        global_batch=_count("global_batch", given["global_batch"]) if "global_batch" in given else None,
        table=path_of(given, "table"),
        out=path_of(given, "out"),
        overrides=tuple(others),
    )
    if options.global_batch and options.what == "length":
        raise UserError(f"global_batch={options.global_batch}: is of what=batch; leave it out")
    if options.table and options.method != "simulate":
        raise UserError(f"table={options.table}: is made by method=simulate; leave method out")
    return options


def _positive(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise UserError(
            f"{key}: {text!r} is no amount of memory; allowed is any number of GB (10^9 bytes) above 0"
        )
    return value


def _count(key: str, text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise UserError(f"{key}: {text!r} is no number of samples; allowed are 1, 2, ...")
    return int(text)
