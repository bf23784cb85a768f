"""Checks the keys of the command. Imports no torch: a wrong key is answered at once."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pmexp.command.chosen_variant import choosing, errors_as_given
from pmexp.command.compose import compose
from pmexp.command.overrides import merged, searching
from pmexp.command.schema import CONFIG_DIR, RUN_KEYS, key_of_flag
from pmexp.command_line import Command, Given, Key, Others, one_of, switch, whole
from pmexp.config import RunConfig
from pmexp.errors import UserError

Shape = tuple[int, ...]
_PAIRS = "number of pairs of steps"

LEVELS = ("micro", "step", "memory", "loader", "records", "start", "report", "tempo")
DTYPES = ("fp32", "bf16", "fp16", "fp64")
DEVICES = ("auto", "cpu", "cuda")
NO_DROPOUT = "none"  # in the place of a variant's name
_OF_ONE_SIDE = ("variant.name", "variant.dropout", "variant.apply", "variant.options")


def _level(value: str, purpose: str, keys: tuple[Key, ...], others: Others | None = RUN_KEYS) -> Command:
    level = Key("level", "which benchmark", allowed=(value,))
    return Command("pmexp.bench", f"level={value}: {purpose}", (level, *keys), others=others)


_STEPS = Key("steps", "pairs of steps that count", "40")
COMMANDS = {
    "micro": _level(
        "micro",
        "dropout ops against nn.Dropout",
        (
            Key("sizes", "shapes, as in 1000,32x128x768; without it seven, of 1000 to 33554432 elements"),
            Key("dtypes", f"some of {', '.join(DTYPES)}", "fp32,bf16"),
            Key("contenders", "names out of the table; without it all. nn.Dropout is always there"),
            Key("p", "probability of dropping an element", "0.1"),
            Key("device", "where it runs", "auto", DEVICES),
            switch("quick", "three shapes and fewer rounds"),
            Key("out", "the folder for micro.csv, micro.png, micro.pdf and environment.json"),
        ),
        others=None,
    ),
    "step": _level(
        "step",
        "training steps of two variants in alternation",
        (
            Key("variant", "a variant, or a class as package.MyDropout", "pm-drop", group="variant"),
            Key(
                "against",
                f"another one; {NO_DROPOUT}: the baseline's model without any dropout",
                "baseline",
                group="variant",
            ),
            _STEPS,
            CONFIG_DIR,
            Key("out", "the folder for step.csv and step.json"),
        ),
    ),
    "memory": _level(
        "memory",
        "bytes saved for backward and time of a step, dropped operands made again against every rival",
        (
            Key("models", "names out of the table; without it all"),
            Key("steps", "steps of each way that count", "12"),
            switch("quick", "narrow models, which show that it works and measure nothing"),
            Key("out", "the folder for memory.csv and environment.json"),
        ),
        others=None,
    ),
    "records": _level(
        "records",
        "what journal and checkpoints cost a step",
        (_STEPS, CONFIG_DIR, Key("out", "the folder for records.json")),
    ),
    "loader": _level(
        "loader",
        "training pictures a second, and how long a step waits for them",
        (
            Key("pictures", "a folder of pictures; without it 64 crops of scikit-learn's two photographs"),
            Key(
                "workers", "numbers of worker processes; 0, in the training thread, is always there", "0,1,2"
            ),
            Key("batch", "pictures a step", "64"),
            Key("step_ms", "how long a step takes, in ms", "150"),
            Key("steps", "steps of a turn", "10"),
            Key("turns", "in each every number of workers has one", "6"),
            Key("out", "the folder for loader.csv and environment.json"),
        ),
        others=None,
    ),
    "start": _level(
        "start",
        "from the command to the first step of a small run, beside a bare script",
        (Key("turns", "in each every way has one", "6"), Key("out", "the folder for start.csv")),
        others=None,
    ),
    "tempo": _level(
        "tempo",
        "Tempo's GELU and LayerNorm on the CPU against the stock ones, and packing a mask against a copy",
        (
            Key("tokens", "rows of 4096 elements for GELU and the mask, of 1024 for LayerNorm", "4096"),
            Key("turns", "in each either side has one", "15"),
            Key("out", "the folder for tempo.csv and environment.json"),
        ),
        others=None,
    ),
    "report": _level(
        "report",
        "time and memory of a report, by the number of runs",
        (
            Key("runs", "numbers of runs, which are made up", "100,1000,10000"),
            Key("against", "another source tree, such as an older checkout, timed beside this one"),
            Key("out", "the folder for report.csv"),
        ),
        others=None,
    ),
}

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
    configs: tuple[RunConfig, RunConfig]  # the run of the one, and of the other


@dataclass(frozen=True, kw_only=True)
class MemoryOptions:
    models: tuple[str, ...]  # empty: all
    steps: int  # each way takes so many
    quick: bool  # narrow models
    out: Path | None


@dataclass(frozen=True, kw_only=True)
class RecordsOptions:
    steps: int  # pairs of steps that count
    out: Path | None
    config: RunConfig


@dataclass(frozen=True, kw_only=True)
class LoaderOptions:
    pictures: Path | None
    workers: tuple[int, ...]  # 0 among them
    batch: int
    step_ms: int
    steps: int  # in a turn
    turns: int
    out: Path | None


@dataclass(frozen=True, kw_only=True)
class StartOptions:
    turns: int
    out: Path | None


@dataclass(frozen=True, kw_only=True)
class TempoOptions:
    tokens: int
    turns: int
    out: Path | None


def level(arguments: Iterable[str]) -> str:
    """Returns the level that was asked for. Raises UserError where there is no such level."""
    keys = {key.name: key for command in COMMANDS.values() for key in command.keys}
    keys["level"] = Key("level", "what is measured", allowed=LEVELS)
    anything = Others("the keys of the level", lambda _: True, lambda: (), key_of_flag)
    return Command("pmexp.bench", "", tuple(keys.values()), others=anything).read([*arguments])["level"]


def micro_options(given: Given) -> MicroOptions:
    """Returns the options of level=micro. Raises UserError for a wrong value."""
    sizes = tuple(map(_shape, given["sizes"].split(","))) if given["sizes"] else None
    return MicroOptions(
        sizes=sizes or (_QUICK_SHAPES if given.is_on("quick") else _SHAPES),
        dtypes=tuple(one_of("dtypes", name, DTYPES) for name in given["dtypes"].split(",")),
        contenders=tuple(given["contenders"].split(",")) if given["contenders"] else (),
        p=_probability("p", given["p"]),
        device=given["device"],
        quick=given.is_on("quick"),
        out=given.new_folder("out"),
    )


def step_options(given: Given) -> StepOptions:
    """Returns the options of level=step. Raises UserError for a wrong value, and for a key that makes both
    sides the same."""
    for key in (override.lstrip("+~").partition("=")[0] for override in given.others):
        if key.startswith(_OF_ONE_SIDE):
            raise UserError(
                f"{key}: would hold for both sides; give variant= or against= the class, as package.MyDropout"
            )
    return StepOptions(
        variant=given["variant"],
        against=given["against"],
        steps=whole("steps", given["steps"], what=_PAIRS),
        out=given.new_folder("out"),
        configs=(_side(given, "variant"), _side(given, "against")),
    )


def memory_options(given: Given) -> MemoryOptions:
    """Returns the options of level=memory. Raises UserError for a wrong value."""
    return MemoryOptions(
        models=tuple(given["models"].split(",")) if given["models"] else (),
        steps=whole("steps", given["steps"], what="number of steps"),
        quick=given.is_on("quick"),
        out=given.new_folder("out"),
    )


def records_options(given: Given) -> RecordsOptions:
    """Returns the options of level=records. Raises UserError for a wrong value."""
    return RecordsOptions(
        steps=whole("steps", given["steps"], what=_PAIRS),
        out=given.new_folder("out"),
        config=_composed(given, []),
    )


def loader_options(given: Given) -> LoaderOptions:
    """Returns the options of level=loader. Raises UserError for a wrong value."""
    workers = [whole("workers", number, 0, "number of workers") for number in given["workers"].split(",")]
    return LoaderOptions(
        pictures=given.path("pictures"),
        workers=tuple(sorted({0, *workers})),
        **{key: whole(key, given[key]) for key in ("batch", "step_ms", "steps", "turns")},
        out=given.new_folder("out"),
    )


def start_options(given: Given) -> StartOptions:
    """Returns the options of level=start. Raises UserError for a wrong value."""
    return StartOptions(turns=whole("turns", given["turns"]), out=given.new_folder("out"))


def tempo_options(given: Given) -> TempoOptions:
    """Returns the options of level=tempo. Raises UserError for a wrong value."""
    numbers = {key: whole(key, given[key]) for key in ("tokens", "turns")}
    return TempoOptions(**numbers, out=given.new_folder("out"))


def _side(given: Given, key: str) -> RunConfig:
    """Returns the run of the variant that `key` names."""
    if key == "against" and given[key] == NO_DROPOUT:
        return _composed(given, ["variant=baseline", "variant.p=0"])
    with errors_as_given(key):
        return _composed(given, [choosing(key, given[key])])


def _composed(given: Given, chosen: list[str]) -> RunConfig:
    """Returns the run that was given; early stopping is off where no override asks for it."""
    overrides = [*given.others, *searching(given.path("config_dir"))]
    return compose([*chosen, *merged(["train.select=last"], overrides)])


def _shape(text: str) -> Shape:
    try:
        return tuple(whole("sizes", length) for length in text.split("x"))
    except UserError:
        said = f"sizes: {text!r} is no shape; write lengths of 1 or more as in 1000,32x128x768"
        raise UserError(said) from None


def _probability(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 < value < 1.0:
        raise UserError(f"{key}: {text!r} is no probability that drops some elements; allowed is (0, 1)")
    return value
