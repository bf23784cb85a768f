"""The keys of the command, checked. Imports no torch: a wrong key is answered at once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pmexp.command.keys import one_of, own_keys, path_of
from pmexp.errors import UserError

Shape = tuple[int, ...]

LEVELS = ("micro", "step", "records")
DTYPES = ("fp32", "bf16", "fp16", "fp64")
DEVICES = ("auto", "cpu", "cuda")

_SHAPES: tuple[Shape, ...] = (
    (1_000,),
    (16_384,),
    (262_144,),
    (16, 128, 312),  # TinyBERT's hidden states, batch 16, 128 tokens
    (32, 128, 768),  # BERT-Base's hidden states, batch 32, 128 tokens
    (16, 12, 128, 128),  # BERT-Base's attention probabilities, batch 16, 128 tokens
    (33_554_432,),
)
_QUICK_SHAPES: tuple[Shape, ...] = ((1_000,), (16, 128, 312), (32, 128, 768))


@dataclass(frozen=True, kw_only=True)
class MicroOptions:
    sizes: tuple[Shape, ...]
    dtypes: tuple[str, ...]
    contenders: tuple[str, ...]  # empty: all
    p: float  # probability of dropping an element
    device: str
    quick: bool  # fewer rounds
    out: Path | None


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    variant: str
    against: str
    steps: int  # pairs of steps that count
    out: Path | None
    overrides: tuple[str, ...]  # of the run configuration, for both variants


@dataclass(frozen=True, kw_only=True)
class RecordsOptions:
    steps: int  # pairs of steps that count
    out: Path | None
    overrides: tuple[str, ...]  # of the run configuration


def level(arguments: Iterable[str]) -> str:
    """The level asked for. Raises UserError when it is none."""
    return one_of("level", own_keys(arguments, ("level",))[0].get("level", ""), LEVELS)


def micro_options(arguments: Sequence[str]) -> MicroOptions:
    """Raises UserError for a key or a value that level=micro does not have."""
    known = ("level", "sizes", "dtypes", "contenders", "p", "device", "quick", "out")
    given, others = own_keys(arguments, known)
    if others:
        raise UserError(f"{others[0]}: is not a key of level=micro; allowed are {', '.join(known)}")
    quick = one_of("quick", given.get("quick", "false"), ("true", "false")) == "true"
    sizes = tuple(map(_shape, given["sizes"].split(","))) if "sizes" in given else None
    dtypes = given.get("dtypes", "fp32,bf16").split(",")
    return MicroOptions(
        sizes=sizes or (_QUICK_SHAPES if quick else _SHAPES),
        dtypes=tuple(one_of("dtypes", name, DTYPES) for name in dtypes),
        contenders=tuple(given["contenders"].split(",")) if "contenders" in given else (),
        p=_probability("p", given.get("p", "0.1")),
        device=one_of("device", given.get("device", "auto"), DEVICES),
        quick=quick,
        out=path_of(given, "out"),
    )


def step_options(arguments: Sequence[str]) -> StepOptions:
    """Raises UserError for a wrong value; what is not a key of the benchmark is an override of the run."""
    given, others = own_keys(arguments, ("level", "variant", "against", "steps", "out"))
    return StepOptions(
        variant=given.get("variant", "pm-drop"),
        against=given.get("against", "baseline"),
        steps=_pairs(given),
        out=path_of(given, "out"),
        overrides=tuple(others),
    )


def records_options(arguments: Sequence[str]) -> RecordsOptions:
    """Raises UserError for a wrong value; what is not a key of the benchmark is an override of the run."""
    given, others = own_keys(arguments, ("level", "steps", "out"))
    return RecordsOptions(steps=_pairs(given), out=path_of(given, "out"), overrides=tuple(others))


def make_folder(out: Path | None) -> None:
    """Makes the folder of `out` before minutes of measurement. Raises UserError where it cannot be made."""
    try:
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out: {out} cannot be made: {error.strerror}; name another folder") from None


def _pairs(given: Mapping[str, str]) -> int:
    steps = given.get("steps", "40")
    if not (steps.isdecimal() and int(steps)):
        raise UserError(f"steps: {steps!r} is no number of pairs of steps; allowed are 1, 2, ...")
    return int(steps)


def _shape(text: str) -> Shape:
    lengths = text.split("x")
    if not all(length.isdecimal() and int(length) for length in lengths):
        raise UserError(f"sizes: {text!r} is no shape; write lengths of 1 or more as in 1000,32x128x768")
    return tuple(map(int, lengths))


def _probability(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 < value < 1.0:
        raise UserError(f"{key}: {text!r} is no probability that drops some elements; allowed is (0, 1)")
    return value
