"""One run's folder: ``runs/<name>/<run id>/``. Imports no torch.

summary.json is written last and atomically: it is the mark of a finished run. failure.json says why
the last try ended otherwise. A folder with neither is of a run that still goes on, and then it is claimed
and its heartbeat is fresh, or of one that was killed.
"""

import json
import logging
import math
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from pmexp import logs
from pmexp.config import RunConfig
from pmexp.errors import RunClaimed, UserError
from pmexp.masking import masked, masked_values
from pmexp.run_folder.failure import Kind

HEARTBEAT_S = 10.0  # seconds between two
_CLAIM_S = 1.0  # a look at the claim holds it for a moment: who wants it waits that long


class RunFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = self.path / "journal.jsonl"
        self.log = self.path / "log.txt"
        self.checkpoints = self.path / "checkpoints"
        self.artifacts = self.path / "artifacts"
        self.summary = self.path / "summary.json"
        self.failure = self.path / "failure.json"
        self.heartbeat = self.path / "heartbeat"
        self._owner = self.path / "owner.json"
        self._lock = self.path / ".lock"

    def is_finished(self) -> bool:
        return self.summary.is_file()

    def out_of_memory(self) -> str:
        """What a run that ended out of memory said; empty for any other."""
        summary = _object_in(self.summary, "status")
        return str(summary.get("error")) if summary.get("status") == "oom" else ""

    def failed(self) -> dict[str, Any]:
        """Of a last try that ended without a result: status, kind, error, log; {} of any other."""
        return _object_in(self.failure, "status", "kind", "error")

    def owner(self) -> dict[str, Any]:
        """Who began the last try: host, pid, started (seconds since 1970), attempt; {} before the first."""
        owner = _object_in(self._owner, "host", "pid", "started")
        return {"attempt": 1} | owner if owner else {}  # earlier versions did not count them

    def last_start(self) -> dict[str, Any]:
        """The last whole line of attempts.jsonl; {} before the first."""
        file = self.path / "attempts.jsonl"
        for line in reversed(file.read_text().splitlines() if file.is_file() else []):
            with suppress(ValueError):  # half of a line is what a kill leaves
                if isinstance(start := json.loads(line), dict):
                    return start
        return {}

    def input_digests(self) -> dict[str, str]:
        """Of the data and the pretrained weights behind its result, or behind the checkpoint that it would go
        on from, by their keys in the record; {} where there is neither, and of a run of earlier versions.
        """
        if self.is_finished():
            found = _object_in(self.summary, "status").get("environment")
        else:
            has_checkpoint = any((self.checkpoints / "resume").glob("step-*.json"))
            found = self.last_start().get("data") if has_checkpoint else None
        found = found if isinstance(found, dict) else {}  # anybody may have written it
        digests = {key: found.get(key) for key in ("data_digest", "ood_data_digest", "model_digest")}
        return {key: value for key, value in digests.items() if isinstance(value, str)}

    def is_claimed(self) -> bool:
        """Whether a process executes the run now, as far as this machine's file system knows."""
        if not self._lock.is_file():
            return False
        try:
            with FileLock(self._lock, timeout=0):
                return False
        except Timeout:
            return True

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Makes the folder and holds its lock, which ends with the process whatever happens to it.

        Raises RunClaimed when another process has it: of two that begin at once, one gets the run. Raises
        UserError when something in the folder leads out of it.
        """
        _refuse_links(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._lock, timeout=_CLAIM_S)
        try:
            lock.acquire()
        except Timeout:
            owner = self.owner()
            raise RunClaimed(
                f"{self.path} is being written by another process ({owner.get('host', 'just started')}, pid "
                f"{owner.get('pid', 'unknown')}); wait for it or stop it"
            ) from None
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def opened(self, config: RunConfig, capture_output: bool = False) -> Iterator[None]:
        """For who has claimed it: writes the configuration and who runs it, and logs to log.txt as well.

        With `capture_output` log.txt gets all that this process prints from now on, to its end.
        """
        for folder in (self.checkpoints, self.artifacts):
            folder.mkdir(exist_ok=True)
        handler = logs.file_handler(self.log)
        logging.getLogger("pmexp").addHandler(handler)
        logging.getLogger("pmexp").setLevel(logging.INFO)
        if capture_output:
            _redirect_output(self.log)
        try:
            owner = {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "started": time.time(),
                "attempt": self.owner().get("attempt", 0) + 1,
            }
            write_atomically(self._owner, json.dumps(owner) + "\n")
            self.failure.unlink(missing_ok=True)
            write_atomically(self.path / "config.yaml", yaml.safe_dump(config.to_dict(), sort_keys=False))
            with _beating(self.heartbeat):
                yield
        finally:
            logging.getLogger("pmexp").removeHandler(handler)
            handler.close()

    @contextmanager
    def joined(self, rank: int) -> Iterator[None]:
        """For a rank other than 0, when rank 0 has opened the folder: its output gets a file of its own."""
        self.log = self.path / f"rank{rank}.txt"
        _redirect_output(self.log)
        yield

    def finish(
        self,
        config: RunConfig,
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
            **({"error": masked(out_of_memory)} if out_of_memory else {}),
            "run_id": config.run_id,
            "name": config.name,
            "labels": config.labels,
            "settings": config.settings,
            "protocol": config.to_dict()["protocol"],
            "metrics": {name: value if math.isfinite(value) else None for name, value in metrics.items()},
            "environment": masked_values(environment),
            "replacement": dict(replacement),
            "tracking": tracking,
        }
        write_atomically(self.summary, json.dumps(summary, indent=1) + "\n")
        shutil.rmtree(self.checkpoints / "resume", ignore_errors=True)

    def fail(self, kind: Kind, error: str) -> None:
        """Writes failure.json unless it is there: of several processes, the one that first failed is named.

        `error` is one line.
        """
        if self.failure.is_file():
            return
        self.path.mkdir(parents=True, exist_ok=True)  # a run may fail before it has opened its folder
        status = "interrupted" if kind is Kind.interrupted else "failed"
        failure = {"status": status, "kind": kind.value, "error": masked(error), "log": str(self.log)}
        write_atomically(self.failure, json.dumps(failure, indent=1) + "\n")


@contextmanager
def _beating(file: Path) -> Iterator[None]:
    """Sets the file's time every few seconds, from a thread that no long step holds up."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT_S):
            with suppress(OSError):  # a full disk, a lost mount: the run itself will say so
                os.utime(file)

    file.touch()
    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _object_in(file: Path, *keys: str) -> dict[str, Any]:
    """The JSON object in `file`, {} where there is none. Raises UserError for a file with anything else."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:  # or removed since somebody looked
        return {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(key in found for key in keys):
        raise UserError(
            f"{file} is damaged: it has no {', '.join(keys)} as JSON; remove it and run this again"
        )
    return found


def _refuse_links(folder: Path) -> None:
    """A run replaces and cuts files: through a link it would do so to files of somebody else."""
    for path in (folder.parent, folder, *folder.rglob("*")):
        if path.is_symlink():
            raise UserError(
                f"{path} is a symbolic link to {os.readlink(path)}, and a run stays inside its runs_dir; "
                "remove the link, or set runs_dir=<that place>"
            )


def _redirect_output(file: Path) -> None:
    with file.open("ab") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
    logs.mask_output()


def write_private(file: Path, text: str) -> Path:
    """Writes a file, whole or not at all, that only its owner can read; returns its absolute path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)
    scratch.replace(file)
    return file.absolute()


def write_atomically(file: Path, text: str) -> None:
    """The file holds all of the old text or all of the new, whatever happens in between."""
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with scratch.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(file)
    finally:
        scratch.unlink(missing_ok=True)
