"""Which protocol an experiment is judged by: the one that its first run was started under.

A criterion that was changed after results were seen proves nothing, so the first counts and the report names
every change. What the reader of a report chooses otherwise is named as well.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pmexp.errors import UserError, first_line
from pmexp.protocol import CriterionConfig, ProtocolConfig, check_written
from pmexp.shown import counted
from pmexp.yaml_text import read
from pmexp_analysis.sources.experiment import Run


@dataclass(frozen=True)
class Choice:
    """What the command line asks for in the place of the protocol's own; None leaves that."""

    baseline: str | None = None
    method: str | None = None
    criteria: Path | None = None  # a YAML file of name -> criterion


NO_CHOICE = Choice()
_LATER = {"learning": ProtocolConfig.learning}  # keys that came later, at the value that runs had before


def protocol_of(runs: Sequence[Run], choice: Choice) -> tuple[ProtocolConfig, list[str]]:
    """The protocol of the first run that started, with the choices, and remarks for the report.

    Raises UserError for a recorded protocol or a file that cannot be used.
    """
    told = sorted((run for run in runs if run.protocol), key=lambda run: (run.curve.started, run.run_id))
    protocol, remarks = ProtocolConfig(), []
    if told:
        content = json.dumps(dict(_mapping(told[0])), default=lambda value: value.name)  # an Enum's
        protocol = parsed(content, f"the summary of run {told[0].run_id}")
        remarks = _changes(told)
    if choice.criteria is not None:
        protocol = replace(protocol, criteria=_read_criteria(choice.criteria))
        remarks.append(f"The criteria were chosen after the runs, in {choice.criteria}.")
    chosen = {name: getattr(choice, name) for name in ("baseline", "method") if getattr(choice, name)}
    remarks += [
        f"The {name} was chosen after the runs: {value} instead of {getattr(protocol, name)}."
        for name, value in chosen.items()
        if told and value != getattr(protocol, name)
    ]
    return replace(protocol, **chosen), remarks


def _changes(told: Sequence[Run]) -> list[str]:
    """A sentence for each other protocol that later runs were started under."""
    first = _mapping(told[0])
    others: Counter[str] = Counter()
    for run in told[1:]:
        if run.protocol != first and (differing := _differing(first, _mapping(run))):
            others[", ".join(differing)] += 1
    return [
        f"{count} of {counted(len(told), 'run')} were started under another protocol ({what} differs); the "
        "report uses the first one."
        for what, count in others.items()
    ]


def _mapping(run: Run) -> Mapping[str, Any]:
    told = run.protocol
    if not isinstance(told, Mapping) or not isinstance(told.get("criteria") or {}, Mapping):
        raise UserError(f"the summary of run {run.run_id} holds no usable protocol: run it again")
    return told


def _differing(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Keys, and criteria by name, in which two protocols differ."""
    names = sorted((set(first) | set(other)) - {"criteria"})
    differing = [
        name for name in names if first.get(name, _LATER.get(name)) != other.get(name, _LATER.get(name))
    ]
    mine, theirs = first.get("criteria") or {}, other.get("criteria") or {}
    criteria = sorted(set(mine) | set(theirs))
    return differing + [name for name in criteria if mine.get(name) != theirs.get(name)]


def _read_criteria(file: Path) -> dict[str, CriterionConfig]:
    try:
        content = read(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"criteria={file}: {error.strerror or error}; name a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise UserError(
            f"criteria={file} cannot be read as YAML: {said}; see conf/criteria/ for examples"
        ) from None
    if not isinstance(content, dict) or not content:
        raise UserError(f"criteria={file} holds no criteria by name; see conf/criteria/ for examples")
    protocol = parsed({"criteria": content}, f"criteria={file}")
    try:
        check_written(protocol)
    except UserError as error:
        raise UserError(f"criteria={file}: {error}") from None
    return protocol.criteria


def parsed(told: Mapping[str, Any] | str, where: str) -> ProtocolConfig:
    """The protocol of a mapping, or of it as JSON text, which is parsed once. Not to be changed.

    Raises UserError, which begins with `where`, for one that cannot be used.
    """
    try:
        return _of_json(told) if isinstance(told, str) else _merged(told)
    except (OmegaConfBaseException, UserError, TypeError, ValueError) as error:
        raise UserError(
            f"{where} holds no usable protocol: {first_line(error)}; src/pmexp/protocol.py has the keys, "
            "conf/criteria/ examples"
        ) from None


@lru_cache(maxsize=64)
def _of_json(told: str) -> ProtocolConfig:
    return _merged(json.loads(told))


def _merged(told: Mapping[str, Any]) -> ProtocolConfig:
    protocol = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ProtocolConfig), dict(told)))
    assert isinstance(protocol, ProtocolConfig)
    return protocol
