"""Checks the keys of the command. Imports no torch: a wrong key is answered at once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pmexp.command import schema
from pmexp.command.chosen_variant import as_given, choosing
from pmexp.command.compose import compose
from pmexp.command.explain import explained
from pmexp.command.override_effect import check_effect
from pmexp.command.overrides import merged, parsed, searching
from pmexp.command_line import Command, Given, Key, Others, whole
from pmexp.config import RunConfig, Select, flat
from pmexp.errors import UserError

SideName = Literal["a", "b"]


def _key_of_flag(name: str) -> Key | None:
    """The key of both sides, or of one behind a. or b., that `--name` means; None where it is none."""
    side, dot, own = name.partition(".")
    if side not in ("a", "b") or not dot:
        return schema.key_of_flag(name)
    key = schema.key_of_flag(own)
    return replace(key, name=f"{side}.{key.name}") if key else None


_VARIANT = "a variant, or a class of nn.Dropout's kind by its import path: pkg.MyDropout"
COMMAND = Command(
    "pmexp.parity",
    "do two dropouts, or two system stacks, train bit for bit alike? exit code 0 equal, 1 different, "
    "2 bad input, 3 the machine failed",
    (
        Key("a", _VARIANT, "baseline", group="variant"),
        Key("b", "what is compared with it", "pm-drop-same-masks", group="variant"),
        schema.CONFIG_DIR,
        Key("steps", "steps taken in lock-step, until one differs", "20"),
        Key("out", "a folder: certificate.json and certificate.md are written there"),
    ),
    others=Others(
        "every key of pmexp train for both sides, such as model=tinybert, or for "
        "one: b.system=tempo b.system.parts=[bf16] b.variant.bits=2",
        schema.is_of_run,
        schema.keys,
        _key_of_flag,
    ),
)

_CHOSEN = ("variant", "arm", "experiment")  # groups that say what a= and b= say
_MAY_DIFFER = ("variant.", "system.", "model.attention", "code.")
_UNREAD = ("name", "runs_dir", "tracking", "checkpoint", "measure", "protocol", "robustness")
_SET_HERE = ("train.log_every", "train.select")


@dataclass(frozen=True, kw_only=True)
class SideOptions:
    """Holds one side of a comparison."""

    given: str  # a variant, or the import path of a class, which has a dot
    config: RunConfig


@dataclass(frozen=True, kw_only=True)
class ParityOptions:
    """Holds what `pmexp parity` was asked for."""

    a: SideOptions
    b: SideOptions
    steps: int
    out: Path | None  # a folder


def parity_options(given: Given) -> ParityOptions:
    """Returns the options that were given. Raises UserError or an error of Hydra for what cannot be
    compared."""
    steps, others = (
        whole("steps", given["steps"], 2, "number of steps"),
        (*given.others, *searching(given.path("config_dir"))),
    )
    for override in others:
        _refuse_without_effect(override)
    common = [each for each in others if not each.startswith(("a.", "b."))]
    names: tuple[SideName, ...] = ("a", "b")
    sides = {name: _side(name, given[name], common, others) for name in names}
    _check_same(sides["a"].config, sides["b"].config)
    if common:
        check_effect([side.config for side in sides.values()], [parsed(common)] * 2)
    return ParityOptions(a=sides["a"], b=sides["b"], steps=steps, out=given.new_folder("out"))


def _side(name: str, given: str, common: Sequence[str], others: Sequence[str]) -> SideOptions:
    own = [each.removeprefix(f"{name}.") for each in others if each.startswith(f"{name}.")]
    with _as_typed(name, own):
        config = compose([choosing(name, given), *merged(common, own)])
        if own:
            check_effect([config], [parsed(own)])
    if config.system.processes > 1:
        raise UserError("system.processes: steps are compared in one process; set it to 1")
    config.train.log_every = 1  # the loss of each step is compared, and none is left out
    config.train.select = Select.last
    return SideOptions(given=given, config=config)


def _refuse_without_effect(typed: str) -> None:
    """Raises UserError for an override of what a= and b= say, and of what no certificate goes by."""
    override = typed.removeprefix("a.").removeprefix("b.")
    key = override.partition("=")[0].lstrip("+~")
    if key in _CHOSEN:
        raise UserError(f"{typed}: what is compared is said by a= and b=, and a.system= and b.system=")
    key = key.partition("@")[2] or key
    if key.partition(".")[0] in _UNREAD or key in _SET_HERE:
        raise UserError(
            f"{typed}: has no effect, since steps are compared and no run is kept, measured or tracked; "
            "leave it out"
        )


@contextmanager
def _as_typed(side: str, own: Sequence[str]) -> Iterator[None]:
    """Lets errors about a side's own overrides name them as they were typed, with a. or b. before the key."""
    try:
        with explained():
            yield
    except UserError as error:
        keys = tuple(override.partition("=")[0].lstrip("+~") for override in own)
        about_own = keys and str(error).lstrip("+~").startswith(keys)
        raise UserError(f"{side}.{error}" if about_own else as_given(side, error)) from error


def _check_same(a: RunConfig, b: RunConfig) -> None:
    """Raises UserError where the sides differ in more than their dropout and their stack."""
    values, others = (flat(config.to_dict()) for config in (a, b))
    for key in sorted(values.keys() | others.keys()):
        if not key.startswith((*_MAY_DIFFER, *_UNREAD)) and values.get(key) != others.get(key):
            raise UserError(
                f"{key}: is {values.get(key)} in a and {others.get(key)} in b; the sides may differ in their "
                "variant, their system and model.attention alone"
            )
