"""One run's folder: ``runs/<name>/<run id>/``. Imports no torch.

summary.json is written last and atomically: it is the mark of a finished run. failure.json says why
the last try ended otherwise. A folder with neither is of a run that still goes on, and then it is claimed
and its heartbeat is fresh, or of one that was killed.
"""

import fcntl
import json
import logging
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

from pmexp import logs
from pmexp.errors import RunClaimed, UserError
from pmexp.masking import masked
from pmexp.run_folder.failure import FailureKind
from pmexp.run_folder.files import damaged, opened, read_object, remove_scratch, write_atomically
from pmexp.run_folder.mirrored import where
from pmexp.run_folder.place import unusable

SUMMARY, JOURNAL, OWNER = "summary.json", "journal.jsonl", "owner.json"
HEARTBEAT_S = 10.0  # seconds between two heartbeats
_CLAIM_S = 1.0  # a claim is tried for so long, since is_claimed() holds the lock for a moment
_CLAIM_LOOK_S = 0.02
_LATEST = 2**40  # a larger time in seconds since 1970, or number of starts, is damage


class _PathOf:
    """A path in a run's folder, made when it is first asked for: a report asks thousands of folders for a
    few."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __set_name__(self, owner: type, attribute: str) -> None:
        self._attribute = attribute

    def __get__(self, folder: "RunFolder", owner: type) -> Path:
        path = folder.path / self._name
        folder.__dict__[self._attribute] = path  # which Python finds before it asks here again
        return path


class RunFolder:
    """Names the files of one run and reads the small ones; who has claimed the run writes them."""

    journal = _PathOf(JOURNAL)
    log = _PathOf("log.txt")
    checkpoints = _PathOf("checkpoints")
    artifacts = _PathOf("artifacts")
    summary = _PathOf(SUMMARY)
    failure = _PathOf("failure.json")
    heartbeat = _PathOf("heartbeat")
    mirrored = _PathOf("tracking.json")  # written and read by run_folder/mirrored.py
    _owner = _PathOf(OWNER)
    _lock = _PathOf(".lock")

    def __init__(self, path: Path) -> None:
        self.path = path

    def is_finished(self) -> bool:
        return os.path.isfile(self.summary)  # Path.is_file raises for a name that is too long for a file

    def out_of_memory(self) -> str:
        """What a run that ended out of memory said; empty for any other."""
        summary = read_object(self.summary, "status")
        return str(summary.get("error")) if summary.get("status") == "oom" else ""

    def environment(self) -> dict[str, Any]:
        """What a run with a result ran in; {} for any other."""
        environment = read_object(self.summary, "status").get("environment")
        return environment if isinstance(environment, dict) else {}

    def failed(self) -> dict[str, Any]:
        """How the last try ended where it left no result: status, kind, error, log; {} for any other."""
        failure = read_object(self.failure, "status", "kind", "error")
        if failure and failure["kind"] not in [kind.value for kind in FailureKind]:
            raise damaged(self.failure, f"its kind is {failure['kind']!r}")
        return failure

    def owner(self) -> dict[str, Any]:
        """Says who began the last try: host, pid, started (seconds since 1970), attempt; {} before it."""
        owner = read_object(f"{self.path}/{OWNER}", "host", "pid", "started")  # making a path takes as long
        if not owner:
            return {}
        owner = {"attempt": 1} | owner  # earlier versions did not count them
        for key, kinds in (("host", (str,)), ("started", (int, float)), ("attempt", (int,))):
            if type(owner[key]) not in kinds or (kinds != (str,) and not 0 <= owner[key] < _LATEST):
                raise damaged(self._owner, f"{key} is {str(owner[key])[:40]!r}")
        return owner

    def last_start(self) -> dict[str, Any]:
        """The last whole line of attempts.jsonl; {} before the first."""
        try:
            with opened(self.path / "attempts.jsonl") as stream:
                lines = stream.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            lines = []
        for line in reversed(lines):
            with suppress(ValueError):  # half of a line is what a kill leaves
                if isinstance(start := json.loads(line), dict):
                    return start
        return {}

    def input_digests(self) -> dict[str, str]:
        """Digests of the data and the pretrained weights behind its result, or behind the checkpoint that it
        would go on from, by their keys in the summary; {} where there is neither, and for a run of earlier
        versions.
        """
        if self.is_finished():
            inputs = read_object(self.summary, "status").get("environment")
        else:
            has_checkpoint = any((self.checkpoints / "resume").glob("step-*.json"))
            inputs = self.last_start().get("data") if has_checkpoint else None
        inputs = inputs if isinstance(inputs, dict) else {}  # anybody may have written it
        digests = {key: inputs.get(key) for key in ("data_digest", "ood_data_digest", "model_digest")}
        return {key: value for key, value in digests.items() if isinstance(value, str)}

    def mlflow_run_id(self) -> str | None:
        """The run in MLflow that has all of this one as it ended; None where there is none."""
        mlflow_run_id = where(self.mirrored, "mlflow").get("mlflow_run_id")
        return mlflow_run_id if isinstance(mlflow_run_id, str) else None

    def is_claimed(self) -> bool:
        """Whether a process executes the run now, as far as this machine's file system knows. Who asks needs
        no more than to read there. Raises UserError where the lock is no file."""
        try:
            with opened(self._lock) as lock:
                return not _try_lock(lock.fileno(), fcntl.LOCK_SH)
        except FileNotFoundError:
            return False

    @contextmanager
    def claimed(self) -> Iterator["Claim"]:
        """Makes the folder and holds its lock, which ends with the process whatever happens to it.

        Raises RunClaimed when another process has it: of two that begin at once, one gets the run. Raises
        UserError when something in the folder leads out of it or is no file, and where no folder can be made
        there; MachineError where the machine fails at it.
        """
        try:
            _refuse_odd_files(self.path)
            self.path.mkdir(parents=True, exist_ok=True)
            claim = Claim(self._lock)
        except OSError as error:
            raise unusable(self.path, "runs_dir", error) from error
        try:
            if not claim.taken_within(_CLAIM_S):
                owner = self.owner()
                raise RunClaimed(
                    f"{self.path} is being written by another process ({owner.get('host', 'just started')}, "
                    f"pid {owner.get('pid', 'unknown')}); wait for it or stop it"
                )
            yield claim
        finally:
            claim.release()

    @contextmanager
    def opened(self, config: Mapping[str, Any], capture_output: bool = False) -> Iterator[None]:
        """Opens the claimed folder: writes the configuration and the owner, and logs to log.txt as well.

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
            remove_scratch(self.path)
            write_atomically(self._owner, json.dumps(owner) + "\n")
            write_atomically(self.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
            with _beating(self.heartbeat):
                yield
        finally:
            logging.getLogger("pmexp").removeHandler(handler)
            with suppress(OSError):  # a full disk has no room for its last lines, and the run says why
                handler.close()

    @contextmanager
    def joined(self, rank: int) -> Iterator[None]:
        """Gives the output of a rank other than 0 a file of its own, once rank 0 has opened the folder."""
        self.log = self.path / f"rank{rank}.txt"
        _redirect_output(self.log)
        yield

    def drop_resume_checkpoints(self) -> None:
        """Removes what only an unfinished run needs."""
        shutil.rmtree(self.checkpoints / "resume", ignore_errors=True)

    def fail(self, kind: FailureKind, error: str) -> None:
        """Writes failure.json unless it is there: of several processes, the one that first failed is named.

        `error` is one line, with which the log ends.
        """
        with suppress(OSError):  # the error itself says what a disk lacks
            self.path.mkdir(parents=True, exist_ok=True)  # a run may fail before it has opened its folder
            logs.add_line(self.log, f"{kind.value}: {error}")
        if self.failure.is_file():
            return
        self.path.mkdir(parents=True, exist_ok=True)
        status = "interrupted" if kind is FailureKind.interrupted else "failed"
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


class Claim:
    """The lock by which one process has a run. It ends with its process, however that ends."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)

    def taken_within(self, seconds: float) -> bool:
        """Tries to take the lock for so long, and returns whether it did."""
        end = time.monotonic() + seconds
        while not (taken := _try_lock(self._descriptor, fcntl.LOCK_EX)) and time.monotonic() < end:
            time.sleep(_CLAIM_LOOK_S)
        return taken

    def check(self) -> None:
        """Raises RunClaimed where the lock's file, or the folder around it, is no longer the one that was
        locked: somebody removed or moved it, and another process may have begun the run anew. Raises OSError
        where the disk fails."""
        try:
            now, own = os.stat(self._file), os.fstat(self._descriptor)
        except (FileNotFoundError, NotADirectoryError):
            now, own = None, None
        if now is None or own is None or (now.st_dev, now.st_ino) != (own.st_dev, own.st_ino):
            raise RunClaimed(
                f"{self._file.parent} was removed or moved while its run was executed; nothing more is "
                "written there, run the same command again"
            )

    def release(self) -> None:
        os.close(self._descriptor)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _refuse_odd_files(folder: Path) -> None:
    """Raises UserError for a link, through which a run would cut and replace files of somebody else, and for
    a pipe, a socket or a device, at which it would wait without end."""
    for path in (folder.parent, folder, *folder.rglob("*")):
        if path.is_symlink():
            raise UserError(
                f"{path} is a symbolic link to {os.readlink(path)}, and a run stays inside its runs_dir; "
                "remove the link, or set runs_dir=<that place>"
            )
        if path.exists() and not path.is_file() and not path.is_dir():
            raise UserError(f"{path} is no file and no folder; remove it and run this again")
    for own in (folder / "checkpoints", folder / "artifacts"):
        if own.exists() and not own.is_dir():
            raise UserError(f"{own} is no folder; remove it and run this again")


def _redirect_output(file: Path) -> None:
    with file.open("ab") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
    logs.mask_output()
