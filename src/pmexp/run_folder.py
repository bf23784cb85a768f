"""One run's folder: ``runs/<name>/<run id>/``. Imports no torch.

summary.json is written last and atomically: it is the mark of a finished run. failure.json says why
the last try ended otherwise; a folder with neither is of a run that still goes on or was killed.
"""

import json
import logging
import math
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from pmexp.config import RunConfig
from pmexp.errors import UserError


class RunFolder:
    def __init__(self, config: RunConfig) -> None:
        self.path = config.folder
        self.journal = self.path / "journal.jsonl"
        self.log = self.path / "log.txt"
        self.checkpoints = self.path / "checkpoints"
        self.artifacts = self.path / "artifacts"
        self.summary = self.path / "summary.json"
        self.failure = self.path / "failure.json"
        self._config = config

    def is_finished(self) -> bool:
        return self.summary.is_file()

    def out_of_memory(self) -> str:
        """What a run that ended out of memory said; empty for any other."""
        summary = json.loads(self.summary.read_text()) if self.is_finished() else {}
        return str(summary["error"]) if summary.get("status") == "oom" else ""

    @contextmanager
    def opened(self, capture_output: bool = False) -> Iterator[None]:
        """Makes the folder, locks it, writes the configuration and who runs it, and logs to log.txt as well.

        With `capture_output` log.txt gets all that this process prints from now on, to its end.
        Raises UserError when another process has the lock.
        """
        for folder in (self.checkpoints, self.artifacts):
            folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(
                f"{self.path} is being written by another process; wait for it or stop it"
            ) from None
        handler = logging.FileHandler(self.log, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger("pmexp").addHandler(handler)
        logging.getLogger("pmexp").setLevel(logging.INFO)
        if capture_output:
            _redirect_output(self.log)
        try:
            self.failure.unlink(missing_ok=True)
            write_atomically(
                self.path / "config.yaml", yaml.safe_dump(self._config.to_dict(), sort_keys=False)
            )
            owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": time.time()}
            write_atomically(self.path / "owner.json", json.dumps(owner) + "\n")
            yield
        finally:
            logging.getLogger("pmexp").removeHandler(handler)
            handler.close()
            lock.release()

    @contextmanager
    def joined(self, rank: int) -> Iterator[None]:
        """For a rank other than 0, when rank 0 has opened the folder: its output gets a file of its own."""
        self.log = self.path / f"rank{rank}.txt"
        _redirect_output(self.log)
        yield

    def finish(
        self,
        metrics: Mapping[str, float],
        environment: Mapping[str, Any],
        replacement: Mapping[str, Any],
        tracking: Mapping[str, str] | None,
        out_of_memory: str = "",
    ) -> None:
        """Writes summary.json, and drops the checkpoint that only an unfinished run needs.

        `out_of_memory`: the line that says so where the run ended by it: its status is then "oom", which is a
        result like another, so that the run is not tried again.
        """
        summary = {
            "status": "oom" if out_of_memory else "finished",
            **({"error": out_of_memory} if out_of_memory else {}),
            "run_id": self._config.run_id,
            "name": self._config.name,
            "labels": self._config.labels,
            "settings": self._config.settings,
            "metrics": {name: value if math.isfinite(value) else None for name, value in metrics.items()},
            "environment": dict(environment),
            "replacement": dict(replacement),
            "tracking": tracking,
        }
        write_atomically(self.summary, json.dumps(summary, indent=1) + "\n")
        shutil.rmtree(self.checkpoints / "resume", ignore_errors=True)

    def fail(self, status: str, error: str) -> None:
        """Writes failure.json unless it is there: of several processes, the one that first failed is named.

        `status` is "failed" or "interrupted", `error` one line.
        """
        if self.failure.is_file():
            return
        self.path.mkdir(parents=True, exist_ok=True)  # a run may fail before it has opened its folder
        failure = {"status": status, "error": error, "log": str(self.log)}
        write_atomically(self.failure, json.dumps(failure, indent=1) + "\n")


def _redirect_output(file: Path) -> None:
    with file.open("ab") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())


def write_atomically(file: Path, text: str) -> None:
    """The file holds all of the old text or all of the new, whatever happens in between."""
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    with scratch.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(file)
