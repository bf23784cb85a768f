"""Checks that a run took what was typed, by comparing once it is composed. Imports no torch."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf

from pmexp.command.overrides import chooses_option, key_of
from pmexp.command.schema import unknown_key
from pmexp.command.sweep_product import ALSO
from pmexp.config import RunConfig, flat
from pmexp.errors import SweepAsked, UserError

_FREE_IN_HYDRA = (
    "hydra.launcher.", "hydra.sweeper.params", "hydra.searchpath", "hydra.help.", "hydra.overrides.",
    "hydra.runtime.", "hydra.job.name", "hydra.job.config_name", "hydra.job.override_dirname",
)  # fmt: skip
_ADDING = (OverrideType.ADD, OverrideType.FORCE_ADD)


def check(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Raises UserError where the composed configuration, Hydra's part included, has a key that no run has,
    and where an override, applied to it once more, would still change something."""
    if OmegaConf.get_type(config) is not RunConfig:
        raise UserError(
            "the composed configuration is no run; let the defaults of your own begin with config"
        )
    for key in _unknown(config):
        typed = [override.input_line for override in overrides if concerns(override, key)]
        raise UserError(f"{f'{typed[-1]}: ' if typed else ''}{unknown_key(key)}")
    content: dict[Any, Any] = {}
    for override in overrides:
        if override.is_delete():  # whose key has no default that would come back
            continue
        if chooses_option(override) or override.key_or_group == "hydra/launcher":
            _check_choice(config, override)
            continue
        content = content or _content(config)  # read where it is needed: that takes as long as all else here
        if not _alike(_content_after(config, override), content):
            raise UserError(
                f"{override.input_line}: another override sets something else there; leave one of them out"
            )


def check_hydra(config: DictConfig, plain: DictConfig) -> None:
    """Raises UserError where options of one's own set a key of Hydra that pmexp does not take.

    `plain`: the configuration without them.
    """
    before, after = (flat(_content(each)["hydra"], "hydra.") for each in (plain, config))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key) and not key.startswith(_FREE_IN_HYDRA):
            raise UserError(
                f"{key}: is set in a YAML file and not taken; of Hydra's keys allowed there are "
                "hydra.launcher, hydra.sweeper.params and hydra.searchpath"
            )


def check_pinned(config: DictConfig, overrides: Sequence[Override], count: int) -> None:
    """Raises UserError where the options that were chosen sweep over a key that the run leaves open.

    `count`: runs of that sweep.
    """
    given = {key_of(override) for override in overrides}
    left = [key for key in config.hydra.sweeper.params or {} if key not in given and key != ALSO]
    if left:
        name = config.hydra.runtime.choices.get("experiment")
        which = f"experiment={name}" if name else "this configuration"
        said = f"{which}: is a sweep of {count} run{'s' * (count != 1)}"
        raise SweepAsked(said, f"add -m, or choose {_listed(left)}", f"choose {_listed(left)}")


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def check_effect(runs: Sequence[RunConfig], typed: Sequence[Sequence[Override]]) -> None:
    """Raises UserError for a key that was typed and that none of the runs has a use for.

    `typed`: the overrides of each run.
    """
    for override in typed[0]:
        key = key_of(override)
        reasons = (_without_effect(run, key, overrides) for run, overrides in zip(runs, typed, strict=True))
        if (reason := next(reasons)) and all(reasons):
            raise UserError(f"{override.input_line}: has no effect, {reason}; leave it out")


def _without_effect(run: RunConfig, key: str, overrides: Sequence[Override]) -> str:
    """Why the run put the key back to what it was, or does not go by it; empty where it does."""
    typed = next(override for override in overrides if key_of(override) == key)
    values = flat(run.to_dict())
    for name, value in flat({key: typed.value()}).items():
        changed = name not in values or values[name] != value
        if reason := (changed and run.unused(name)) or run.ignored(name):
            return reason
    return ""


def _unknown(node: Any, prefix: str = "") -> Iterator[str]:
    """The keys below a node that its dataclass does not have; of Hydra's part only those of the launcher."""
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing() or node._is_interpolation():
        return
    cls = OmegaConf.get_type(node)
    known = {field.name for field in fields(cls)} if is_dataclass(cls) else {str(name) for name in node}
    for name in node:
        key = f"{prefix}{name!s}"
        if key == "hydra":
            yield from _unknown(node.hydra._get_node("launcher"), "hydra.launcher.")
        elif str(name) not in known:
            yield key
        else:
            yield from _unknown(node._get_node(name), f"{key}.")


def concerns(override: Override, key: str) -> bool:
    """Whether an override is about a key, one above it or one below it."""
    one, other = f"{key}.", f"{override.package or override.key_or_group}."
    return one.startswith(other) or other.startswith(one)


def _content(config: DictConfig) -> dict[Any, Any]:
    content = OmegaConf.to_container(config)
    assert isinstance(content, dict)
    return content


def _content_after(config: DictConfig, override: Override) -> dict[Any, Any]:
    OmegaConf.update(config, override.key_or_group, override.value(), force_add=override.type in _ADDING)
    return _content(config)


def _alike(one: Any, other: Any) -> bool:
    """Whether two contents are equal, nan and nan too: the checks of the values have an error for nan."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    return bool(one == other) or (one != one and other != other)


def _check_choice(config: DictConfig, override: Override) -> None:
    chosen = config.hydra.runtime.choices.get(key_of(override))
    if chosen != override.value() and isinstance(
        override.value(), str
    ):  # Hydra keeps no record of a chosen list
        raise UserError(f"{override.input_line}: {chosen} was chosen in its place; leave one of them out")
