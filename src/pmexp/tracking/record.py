"""Reads from a run's folder what trackers should hold of the run: its name, settings, tags and values."""

import math
import shlex
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from pmexp.config import RunConfig, settings_of
from pmexp.errors import UserError
from pmexp.run_folder.differences import Differing, name_in_trackers, told_apart, words_of
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.found import known_runs
from pmexp.run_folder.journal_lines import read_lines
from pmexp.run_folder.summary import Summary, read_summary
from pmexp.tracking.descriptions import DIFFERS

FINAL = "final/"  # before the names of a run's final values, which keeps them apart from the curves
_LONGEST_PARAM, _LONGEST_TAG = 6000, 5000  # characters; MLflow would cut it without a word


class LoggedValue(NamedTuple):
    """Holds one value of one metric. MLflow keeps equal ones once, so sending it again changes nothing."""

    metric: str
    time: int  # milliseconds since 1970
    step: int
    value: float | None  # None: not a number


class Record:
    """Reads from the folder of a run what a tracker is told of it."""

    def __init__(self, config: RunConfig, folder: RunFolder) -> None:
        self.folder, self.run_id = folder, folder.path.name
        self.settings = config.settings
        self.params = {key: str(value)[:_LONGEST_PARAM] for key, value in config.settings.items()}
        self.labels = {key: str(value) for key, value in config.labels.items()}

    @property
    def apart(self) -> Mapping[str, Differing]:
        """What tells each run of the experiment apart, by run id."""
        return apart_in(self.folder.path.parent)

    @property
    def run_name(self) -> str:
        return name_in_trackers(self.labels, self._words)

    @property
    def _words(self) -> str:
        return words_of(self.apart.get(self.run_id, {}))[:_LONGEST_TAG]

    def values(self, offset: int = 0) -> tuple[list[LoggedValue], int]:
        """The journal's values from byte `offset` on, and the offset behind the last of them."""
        if not self.folder.journal.is_file():  # the run failed before it had one
            return [], offset
        values = []
        for line, end in read_lines(self.folder.journal, offset):
            time = round(line["time"] * 1000)
            values.append(LoggedValue(line["metric"], time, line["step"], line["value"]))
            offset = end
        return values, offset

    def final_values(self, journal: list[LoggedValue]) -> list[LoggedValue]:
        """The values of the summary, at the time of the journal's last; none without a summary."""
        time = max((value.time for value in journal), default=0)
        summary = self._summary()
        metrics = summary.metrics if summary else {}
        return [logged_value(FINAL + name, time, 0, value) for name, value in metrics.items()]

    def tags(self) -> dict[str, str | None]:
        """Returns the tags by name; None for one that must not be there. `status` says what MLflow has no
        status for."""
        summary = self._summary()
        return {
            "run_id": self.run_id,
            **self.labels,
            DIFFERS: self._words or None,
            **self._origin(summary.environment if summary else {}),
            "folder": str(self.folder.path),
            "status": "oom" if summary and summary.status == "oom" else None,
        }

    def command(self) -> str | None:
        """What a person typed to start the run or its sweep; None where a launcher started it otherwise."""
        words = shlex.split(str(self.folder.last_start().get("command", "")))
        if not words or not words[0].endswith("pmexp/train.py"):
            return None
        typed = [word for word in words[1:] if not word.startswith("hydra.sweep.dir=")]  # a sweep's scratch
        return shlex.join(["python", "-m", "pmexp.train", *typed])

    def _origin(self, ended: Mapping[str, Any]) -> dict[str, str | None]:
        """Names code and machine of the last start, by its own line, else by the environment of the end."""
        start = self.folder.last_start()
        git = start.get("git") or {}
        changed = ("no", "yes")[git["changed"]] if "changed" in git else ended.get("git_changed")
        return {
            "git_sha": git.get("commit") or ended.get("git_commit"),
            "git_dirty": changed,
            "host": start.get("host") or ended.get("host"),
            "device": ended.get("device"),
        }

    def artifacts(self) -> list[Path]:
        files = (self.folder.path / "config.yaml", self.folder.summary)
        return [file for file in files if file.is_file()]

    def ended(self) -> int | None:
        """When the run came to its end, in milliseconds since 1970; None where no file says so."""
        for file in (self.folder.summary, self.folder.failure, self.folder.journal):
            if file.is_file():
                return round(file.stat().st_mtime * 1000)
        return None

    def _summary(self) -> Summary | None:
        return read_summary(self.folder.summary) if self.folder.is_finished() else None


def apart_in(experiment: Path) -> Mapping[str, Differing]:
    """What tells each run of an experiment's folder apart, by run id; {} where its plan is damaged."""
    plan = experiment / "plan.json"
    return _apart_in(
        experiment, *(place.stat().st_mtime_ns for place in (experiment, plan) if place.exists())
    )


@lru_cache(maxsize=1)
def _apart_in(experiment: Path, *changed: int) -> Mapping[str, Differing]:
    """apart_in() the folder as it is since it and its plan were `changed`: a repair asks for each run."""
    try:
        known = known_runs(experiment)
    except UserError:
        return {}
    return told_apart({run.run_id: (run.labels, settings_of(run)) for run in known})


def logged_value(key: str, time: int, step: int, value: float) -> LoggedValue:
    """Returns the value as it was sent, from what MLflow gives back of it."""
    return LoggedValue(key, time, step, None if math.isnan(value) else value)
