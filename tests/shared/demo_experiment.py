"""An experiment of run folders as runs leave them, for tests of `python -m pmexp.runs`."""

import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from composed import DEFAULT, config
from pmexp.config import RunConfig
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.journal import Journal
from pmexp.runs.command import main

HERE = socket.gethostname()
HEADINGS = ["step", "loss", "host", "time", "attempt", "waited", "error"]
STATES = ["pending", "running", "finished", "oom", "failed", "interrupted", "stale"]


@dataclass
class Demo:
    """An experiment with a run in each state."""

    runs_dir: Path
    capture: pytest.CaptureFixture[str]

    @property
    def folder(self) -> Path:
        return self.runs_dir / "demo"

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """The command: (exit code, stdout, stderr)."""
        self.capture.readouterr()
        code = main([*arguments, "--runs-dir", str(self.runs_dir)])
        out, err = self.capture.readouterr()
        return code, out, err

    def objects(self, *arguments: str) -> dict[str, Any]:
        """Returns the objects that --json prints, by run id."""
        code, out, _ = self("demo", "--json", *arguments)
        assert code == 0
        return {run["run_id"]: run for run in json.loads(out)}

    def run(
        self,
        run_id: str,
        host: str = HERE,
        started_s_ago: float = 100.0,
        steps: int = 5,
        **files: dict[str, Any],
    ) -> RunFolder:
        """A run folder with a journal of `steps` steps and `files`, by their stem."""
        folder = RunFolder(self.folder / run_id)
        folder.path.mkdir(parents=True)
        owner = {"host": host, "pid": 1, "started": time.time() - started_s_ago, "attempt": 2}
        for stem, content in {"owner": owner, **files}.items():
            (folder.path / f"{stem}.json").write_text(json.dumps(content))
        with Journal(folder.journal) as journal:
            journal.write(0, {"progress/steps_total": 40})
            for step in range(1, steps + 1):
                journal.write(step, {"train/loss": 1 / step, "grad/norm": 1.0})
        return folder

    def configured(self, *overrides: str, **files: dict[str, Any]) -> RunConfig:
        """A run folder as a run of the configuration leaves it."""
        run = config(f"runs_dir={self.runs_dir}", "name=demo", *overrides)
        if "summary" in files:
            files["summary"] |= {"labels": run.labels, "settings": run.settings}
        folder = self.run(run.run_id, **files)
        (folder.path / "config.yaml").write_text(yaml.safe_dump(run.to_dict(), sort_keys=False))
        return run

    def plan(self, **variants: str) -> None:
        labels = {label: value for label, value in DEFAULT.labels.items() if label != "variant"}
        entries = [
            {"run_id": run_id, **labels, "variant": variant, "settings": DEFAULT.settings}
            for run_id, variant in variants.items()
        ]
        (self.folder / "plan.json").write_text(json.dumps(entries))


def failure(status: str, error: str) -> dict[str, Any]:
    return {"status": status, "kind": "code", "error": error, "log": "log.txt"}


def summary(status: str = "finished", **more: Any) -> dict[str, Any]:
    return {"status": status, "labels": DEFAULT.labels, "metrics": {}, **more}
