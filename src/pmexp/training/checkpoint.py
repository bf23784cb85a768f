"""Resume checkpoints of a run: complete or not there at all, verified when they are read, few.

checkpoints/resume/step-00000120.pt      the training state
checkpoints/resume/step-00000120.json    written last: with it the checkpoint is complete, and this is what
                                         the state and the journal have to be like

A run goes on from the newest complete one. None is deleted before `keep` newer ones are complete.
"""

import hashlib
import json
import logging
import os
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from torch import Tensor

from pmexp.config import CheckpointConfig
from pmexp.errors import error_line, first_line
from pmexp.run_folder.files import write_atomically
from pmexp.run_folder.folder import RunFolder
from pmexp.systems.ranks import Ranks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Manifest:
    """Describes a state's file and the journal at its step; a checkpoint with a manifest is complete."""

    step: int
    best_step: int  # whose weights the run would be tested with
    bytes: int
    blake2b: str  # digest of the state's file
    journal_bytes: int  # the journal's length at that step; what comes after is written again


class Checkpoints:
    """The resume checkpoints of one run. Rank 0 writes them, every rank reads."""

    def __init__(
        self, folder: RunFolder, config: CheckpointConfig, ranks: Ranks, device: torch.device
    ) -> None:
        self._folder = folder.checkpoints / "resume"
        self._journal = folder.journal
        self._config, self._ranks = config, ranks
        self.asynchronous = (device.type == "cuda") if config.asynchronous is None else config.asynchronous
        self._writer: threading.Thread | None = None
        self._best_of_newest: set[int] = set()  # counts the one being written, too
        self._due_at = self._one_interval_on()

    def is_due(self) -> bool:
        return self._ranks.is_first and time.monotonic() >= self._due_at

    def save(self, state: dict[str, Any], step: int, best_step: int, journal_bytes: int) -> None:
        """Writes rank 0's `state`; asynchronously, from a copy on the CPU, while training goes on.

        Where it cannot be written (a full disk) the run keeps its older ones and goes on, with a warning.
        """
        self._due_at = self._one_interval_on()
        if not self._ranks.is_first:
            return
        self.wait()
        self._best_of_newest = {best_step}
        if not self.asynchronous:
            self._write(state, step, best_step, journal_bytes)
            return
        arguments = (_copied_to_cpu(state), step, best_step, journal_bytes)
        self._writer = threading.Thread(target=self._write, args=arguments, name="checkpoint")
        self._writer.start()

    def wait(self) -> None:
        """Waits until the checkpoint that is being written is complete."""
        if self._writer:
            self._writer.join()
            self._writer = None

    def load(self) -> tuple[dict[str, Any], Manifest] | None:
        """Returns the newest complete state, on the CPU, with its manifest; None where there is none.

        Every rank gets the one that rank 0 chose. An incomplete one is removed with a warning.
        """
        newest = self._newest() if self._ranks.is_first else None
        manifest = self._ranks.from_first(newest[1] if newest else None)
        if manifest is None:
            return None
        state = newest[0] if newest else _read(self._state_file(manifest.step))
        return state, manifest

    def best_steps(self) -> set[int]:
        """Steps whose best weights a resumed run could still need."""
        return self._best_of_newest | {manifest.best_step for manifest in self._manifests()}

    def _newest(self) -> tuple[dict[str, Any], Manifest] | None:
        for scratch in self._folder.glob("*.partial"):
            scratch.unlink()
        for manifest in reversed(self._manifests()):
            try:
                return self._verified(manifest), manifest
            except Exception as error:  # whatever a damaged file makes torch raise
                file = self._state_file(manifest.step)
                log.warning("checkpoint %s is left out: %s", file, first_line(error))
                self._remove(manifest)
        if self._folder.is_dir():
            log.warning("%s has no complete checkpoint; the run starts anew", self._folder)
        return None

    def _verified(self, manifest: Manifest) -> dict[str, Any]:
        file = self._state_file(manifest.step)
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, _new_digest).hexdigest()
        if file.stat().st_size != manifest.bytes or digest != manifest.blake2b:
            raise ValueError("it is cut or damaged")
        if self._journal.stat().st_size < manifest.journal_bytes:
            raise ValueError(f"{self._journal.name} is shorter than it was then")
        return _read(file)

    def _write(self, state: dict[str, Any], step: int, best_step: int, journal_bytes: int) -> None:
        file = self._state_file(step)
        scratch = file.with_suffix(".partial")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with scratch.open("wb") as stream:
                digested = _DigestedStream(stream)
                torch.save(state, cast(IO[bytes], digested))
                stream.flush()
                os.fsync(stream.fileno())
            scratch.replace(file)
            size, digest = file.stat().st_size, digested.digest.hexdigest()
            manifest = Manifest(step, best_step, size, digest, journal_bytes)
            write_atomically(file.with_suffix(".json"), json.dumps(asdict(manifest)) + "\n")
        except (OSError, RuntimeError) as error:  # torch's writer says the latter of a full disk
            scratch.unlink(missing_ok=True)
            if not file.with_suffix(".json").is_file():
                file.unlink(missing_ok=True)
            log.warning("no checkpoint at step %d, the older ones stay: %s", step, error_line(error))
            return
        for old in self._manifests()[: -self._config.keep]:
            self._remove(old)

    def _manifests(self) -> list[Manifest]:
        """Returns the manifests of the checkpoints that are complete by what these say, the oldest first."""
        manifests = []
        for file in sorted(self._folder.glob("step-*.json")):
            try:
                manifests.append(Manifest(**json.loads(file.read_text())))
            except (ValueError, TypeError):
                log.warning("checkpoint %s is left out: its manifest is damaged", file)
        return manifests

    def _remove(self, manifest: Manifest) -> None:
        """Removes a checkpoint, its mark of completeness first: a kill in between leaves no damaged one."""
        file = self._state_file(manifest.step)
        file.with_suffix(".json").unlink(missing_ok=True)
        file.unlink(missing_ok=True)

    def _state_file(self, step: int) -> Path:
        return self._folder / f"step-{step:08d}.pt"

    def _one_interval_on(self) -> float:
        every = self._config.every_s
        return float("inf") if every is None else time.monotonic() + every


def _read(file: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def _new_digest() -> Any:
    return hashlib.blake2b(digest_size=16)


class _DigestedStream:
    """A stream for torch.save that knows the digest of what went through it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.digest = _new_digest()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._stream.write(data)

    def flush(self) -> None:
        self._stream.flush()


def _copied_to_cpu(value: Any) -> Any:
    """Returns the same nest of dicts, lists and tuples with copies of its tensors."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied_to_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied_to_cpu(item) for item in value)
    return value
