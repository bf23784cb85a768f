"""Mirrors a run to Weights & Biases: one run there for one run folder, in the project of the experiment.

Its files lie in `runs/<name>/wandb`, where `wandb sync` finds them. W&B can append and not take back: files
that hold anything else than the folder are removed and written once more. A server keeps the rows that it
has, by their number, so a run that goes on sends the later ones.
"""

import math
import os
import re
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmexp.config import RunConfig, WandbMode
from pmexp.run_folder.mirrored import where
from pmexp.tracking.record import FINAL, LoggedValue, Record
from pmexp.tracking.tracker import MirroredRun, Status, Tracker
from pmexp.tracking.wandb_files import WandbContent, read_wandb

if TYPE_CHECKING:
    from wandb import Run

_FOLDER = "wandb"  # W&B makes it in the folder that it is given
_STEP = "step"  # the training step, as a column: W&B's own step counts rows
_EXIT_CODES: dict[Status, int] = {"FINISHED": 0, "FAILED": 1, "KILLED": 255}  # 255 is W&B's own for Ctrl-C
_SETTINGS: dict[str, Any] = {  # nothing is recorded but what pmexp says
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "save_code": False,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
    "silent": True,
    "symlink": False,  # to the latest run, for which those of a sweep would compete
    "init_timeout": 10.0,
    "login_timeout": 5.0,
    "finish_timeout": 30.0,
    "finish_timeout_raises": True,
}
_ON_DISK_S, _LOOK_S = 5.0, 0.05  # finish() returns shortly before all is in the file


class WandbTracker(Tracker):
    """Opens runs of W&B."""

    title = "W&B"
    package = "wandb"

    def place(self, config: RunConfig) -> str:
        return f"tracking.wandb: {config.folder.parent / _FOLDER}"

    def open(self, config: RunConfig, record: Record) -> "WandbRun":
        return WandbRun(config, record)


class WandbRun(MirroredRun):
    """Keeps the one run of W&B that mirrors a folder in agreement with it."""

    def __init__(self, config: RunConfig, record: Record) -> None:
        self._record = record
        self._mode, self._project, self._place = config.tracking.wandb_mode, config.name, config.folder.parent
        self._is_offline = self._mode is WandbMode.offline
        self._run: Run | None = None  # W&B's, while it takes values
        self._offset = 0  # where in the journal what was read ends
        self._held: list[LoggedValue] = []  # the last row, which may get more
        self._present = 0  # rows that the server has already

    def settle(self, status: Status) -> list[str]:
        changes = []
        if not self._run:
            folders = self._folders()
            if status != "RUNNING" and self._agrees(folders, status):
                return []
            for folder in folders:
                shutil.rmtree(folder)
            changes = ["written anew" if folders else "created"]
        try:
            self._run = self._run or self._begun()
            self.follow()
            if status != "RUNNING":
                self._end(self._run, status)
        except Exception:
            _let_go()
            raise
        return changes

    def follow(self) -> None:
        values, self._offset = self._record.values(self._offset)
        rows = _rows(self._held + values)
        self._held = rows.pop() if rows else []
        self._send(rows)

    def where(self) -> dict[str, str]:
        rows = str(len(self._rows()))
        return {"mode": self._mode.value, "project": self._project, "id": self._record.run_id, "rows": rows}

    def _begun(self) -> "Run":
        os.environ.setdefault("WANDB_SILENT", "true")  # it speaks of its login before it has its settings
        import wandb

        self._place.mkdir(parents=True, exist_ok=True)  # W&B would take a folder elsewhere
        run = wandb.init(
            project=self._project,
            dir=self._place,
            id=self._record.run_id,
            name=self._record.run_name,
            group=self._record.labels["variant"],
            config=self._config(),
            resume=None if self._is_offline else "allow",
            reinit="create_new",
            settings=wandb.Settings(mode=self._mode.value, **_SETTINGS),
        )
        self._present = run.starting_step
        run.define_metric("*", step_metric=_STEP)
        return run

    def _send(self, rows: Sequence[list[LoggedValue]]) -> None:
        assert self._run
        for row in rows:
            if self._present:
                self._present -= 1
                continue
            values = {value.metric: _number(value.value) for value in row}
            self._run.log({"_timestamp": row[0].time / 1000, _STEP: row[0].step, **values})

    def _end(self, run: "Run", status: Status) -> None:
        """Sends what W&B gets at the end alone, and makes sure that it is on disk."""
        self._send([self._held] if self._held else [])
        self._held = []
        wanted = self._wanted(status)
        run.name = wanted.name  # other runs of the experiment may have come since
        run.config.update(wanted.config, allow_val_change=True)
        run.summary.update({name: _number(value) for name, value in wanted.summary.items()})
        run.finish(exit_code=wanted.exit_code)
        self._run = None
        deadline = time.monotonic() + _ON_DISK_S
        while self._is_offline and self._on_disk(self._folders()) != wanted:
            if time.monotonic() > deadline:
                raise OSError("its file does not hold all that it was given; the logs beside it may say why")
            time.sleep(_LOOK_S)

    def _folders(self) -> list[Path]:
        """W&B's folders of this run; one is as it should be."""
        name = re.compile(rf"(offline-)?run-\d+_\d+-{re.escape(self._record.run_id)}")
        return [path for path in sorted(self._place.glob(f"{_FOLDER}/*")) if name.fullmatch(path.name)]

    def _agrees(self, folders: Sequence[Path], status: Status) -> bool:
        """Whether W&B has all of the run that has ended. What an account has is known by the run's record."""
        if self._is_offline:
            return self._on_disk(folders) == self._wanted(status)
        return where(self._record.folder.mirrored, _FOLDER) == self.where()

    def _on_disk(self, folders: Sequence[Path]) -> WandbContent | None:
        """What W&B's file holds; None where there is not one file in one folder."""
        files = [folder / f"run-{self._record.run_id}.wandb" for folder in folders]
        return read_wandb(files[0], FINAL) if len(files) == 1 and files[0].is_file() else None

    def _wanted(self, status: Status) -> WandbContent:
        rows = [{_STEP: row[0].step} | {value.metric: value.value for value in row} for row in self._rows()]
        finals = {value.metric: value.value for value in self._record.final_values([])}
        return WandbContent(self._record.run_name, self._config(), rows, finals, _EXIT_CODES[status])

    def _rows(self) -> list[list[LoggedValue]]:
        return _rows(self._record.values()[0])

    def _config(self) -> dict[str, Any]:
        """The run's settings as nested mappings, as W&B shows them, with the run's tags below `pmexp`."""
        config: dict[str, Any] = {}
        for key, value in self._record.settings.items():
            *groups, name = key.split(".")
            group = config
            for each in groups:
                group = group.setdefault(each, {})
            group[name] = value
        tags = {name: value for name, value in self._record.tags().items() if value is not None}
        return {**config, "pmexp": tags}


def _let_go() -> None:
    """Ends W&B's process after a failure: it holds a run that could not begin for one in use."""
    import wandb

    with suppress(Exception):
        wandb.teardown(exit_code=_EXIT_CODES["KILLED"])


def _rows(values: Sequence[LoggedValue]) -> list[list[LoggedValue]]:
    """Groups the values into rows: those that follow each other with one step, and a metric once."""
    rows: list[list[LoggedValue]] = []
    for value in values:
        row = rows[-1] if rows else []
        if not row or row[0].step != value.step or value.metric in [other.metric for other in row]:
            rows.append([])
        rows[-1].append(value)
    return rows


def _number(value: float | None) -> float:
    return math.nan if value is None else value
