"""What MLflow should hold of one run, out of the run's folder."""

import json
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pmexp.config import RunConfig
from pmexp.run_folder.folder import RunFolder, write_atomically
from pmexp.run_folder.journal import read_journal

FINAL = "final/"  # prefix of a run's final values, apart from the curves
_LONGEST_PARAM = 6000  # characters; MLflow would cut it without a word


class Point(NamedTuple):
    """One value of one metric. MLflow keeps equal points once, so that sending one again changes nothing."""

    metric: str
    time: int  # milliseconds since 1970
    step: int
    value: float | None  # None: not a number


class Record:
    def __init__(self, config: RunConfig, folder: RunFolder) -> None:
        self.run_id = folder.path.name
        self.run_name = f"{config.variant.name}-{config.system.name}-{config.model.name}-s{config.seed}"
        self.params = {key: str(value)[:_LONGEST_PARAM] for key, value in config.settings.items()}
        self.labels = {key: str(value) for key, value in config.labels.items()}
        self._folder = folder

    def points(self, offset: int = 0) -> tuple[list[Point], int]:
        """The journal's points from byte `offset` on, and the offset behind the last of them."""
        if not self._folder.journal.is_file():  # of a run that failed before it had one
            return [], offset
        found = []
        for record, end in read_journal(self._folder.journal, offset):
            time = round(record["time"] * 1000)
            found.append(Point(record["metric"], time, record["step"], record["value"]))
            offset = end
        return found, offset

    def final_points(self, journal: list[Point]) -> list[Point]:
        """The values of the summary, at the time of the journal's last; none without a summary."""
        time = max((point.time for point in journal), default=0)
        values = self._summary().get("metrics", {})
        return [Point(FINAL + name, time, 0, value) for name, value in values.items()]

    def tags(self) -> dict[str, str | None]:
        """By name; None for one that must not be there. `status` says what MLflow has no status for."""
        summary = self._summary()
        return {
            "run_id": self.run_id,
            **self.labels,
            **self._origin(summary.get("environment", {})),
            "folder": str(self._folder.path),
            "status": "oom" if summary.get("status") == "oom" else None,
        }

    def command(self) -> str | None:
        """What a person typed to start the run or its sweep; None where a launcher started it otherwise."""
        words = shlex.split(str(self._folder.last_start().get("command", "")))
        if not words or not words[0].endswith("pmexp/train.py"):
            return None
        typed = [word for word in words[1:] if not word.startswith("hydra.sweep.dir=")]  # a sweep's scratch
        return shlex.join(["python", "-m", "pmexp.train", *typed])

    def _origin(self, ended: Mapping[str, Any]) -> dict[str, str | None]:
        """Code and machine of the last start, by its own line and by the environment of what `ended`."""
        start = self._folder.last_start()
        git = start.get("git") or {}
        changed = ("no", "yes")[git["changed"]] if "changed" in git else ended.get("git_changed")
        return {
            "git_sha": git.get("commit") or ended.get("git_commit"),
            "git_dirty": changed,
            "host": start.get("host") or ended.get("host"),
            "device": ended.get("device"),
        }

    def artifacts(self) -> list[Path]:
        files = (self._folder.path / "config.yaml", self._folder.summary)
        return [file for file in files if file.is_file()]

    def ended(self) -> int | None:
        """When the run came to its end, in milliseconds since 1970; None where no file says so."""
        for file in (self._folder.summary, self._folder.failure, self._folder.journal):
            if file.is_file():
                return round(file.stat().st_mtime * 1000)
        return None

    def mark_complete(self, uri: str, mlflow_run_id: str) -> None:
        """Writes tracking.json: MLflow has all of the run as it ended."""
        write_atomically(_mark(self._folder), json.dumps({"uri": uri, "mlflow_run_id": mlflow_run_id}) + "\n")

    def _summary(self) -> Mapping[str, Any]:
        text = self._folder.summary.read_text() if self._folder.is_finished() else "{}"
        summary: dict[str, Any] = json.loads(text)
        return summary


def unmark(folder: RunFolder) -> None:
    """Of a run that goes on."""
    _mark(folder).unlink(missing_ok=True)


def _mark(folder: RunFolder) -> Path:
    return folder.path / "tracking.json"


def point_of(key: str, time: int, step: int, value: float) -> Point:
    """A point as MLflow gives it back."""
    return Point(key, time, step, None if math.isnan(value) else value)
