"""Resume checkpoints: complete or absent, verified, few, and the last good one is never lost."""

import errno
import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from disks import small_disk
from pmexp.config import CheckpointConfig
from pmexp.run_folder.folder import RunFolder
from pmexp.systems.ranks import Ranks
from pmexp.training import checkpoint
from pmexp.training.checkpoint import Checkpoints

CPU = torch.device("cpu")
Make = Callable[..., Checkpoints]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "journal.jsonl").write_bytes(b"x" * 100)
    return RunFolder(tmp_path)


@pytest.fixture
def make(folder: RunFolder) -> Make:
    return lambda **keys: Checkpoints(folder, CheckpointConfig(**keys), Ranks(), CPU)


def state(step: int, size: int = 1000) -> dict[str, Any]:
    return {"weights": torch.full((size,), float(step)), "nested": [{"step": step}, (1, 2.5, None)]}


def saved(checkpoints: Checkpoints, *steps: int) -> None:
    for step in steps:
        checkpoints.save(state(step), step, best_step=step // 2, journal_bytes=step)
    checkpoints.wait()


def loaded_step(checkpoints: Checkpoints) -> int | None:
    loaded = checkpoints.load()
    if loaded is None:
        return None
    step = loaded[1].step
    assert (
        torch.equal(loaded[0]["weights"], state(step)["weights"]) and loaded[0]["nested"][0]["step"] == step
    )
    return step


def files(folder: RunFolder) -> list[str]:
    return sorted(file.name for file in (folder.checkpoints / "resume").iterdir())


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_newest_is_loaded_and_few_are_kept(asynchronous: bool, folder: RunFolder, make: Make) -> None:
    checkpoints = make(keep=2, asynchronous=asynchronous)
    saved(checkpoints, 10, 20, 30)
    assert loaded_step(checkpoints) == 30
    assert files(folder) == [
        "step-00000020.json",
        "step-00000020.pt",
        "step-00000030.json",
        "step-00000030.pt",
    ]
    assert checkpoints.best_steps() == {10, 15}


def test_there_is_none_before_the_first(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    assert make().load() is None and not caplog.text


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_a_cut_one_is_left_out_and_the_one_before_counts(
    kept: float, folder: RunFolder, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    saved(make(), 10, 20)
    file = folder.checkpoints / "resume" / "step-00000020.pt"
    file.write_bytes(file.read_bytes()[: int(kept * file.stat().st_size)])
    assert loaded_step(make()) == 10
    assert "step-00000020.pt is left out: it is cut or damaged" in caplog.text
    assert files(folder) == ["step-00000010.json", "step-00000010.pt"]


def test_one_flipped_bit_is_found(folder: RunFolder, make: Make) -> None:
    saved(make(), 10, 20)
    file = folder.checkpoints / "resume" / "step-00000020.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert loaded_step(make()) == 10


def test_one_without_its_mark_of_completeness_does_not_count(folder: RunFolder, make: Make) -> None:
    saved(make(), 10, 20)
    (folder.checkpoints / "resume" / "step-00000020.json").unlink()
    (folder.checkpoints / "resume" / "step-00000030.partial").write_bytes(b"half")
    assert loaded_step(make()) == 10
    assert not list(folder.checkpoints.glob("resume/*.partial"))


def test_a_damaged_mark_is_left_out(folder: RunFolder, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    saved(make(), 10, 20)
    (folder.checkpoints / "resume" / "step-00000020.json").write_text('{"step": 20')
    assert loaded_step(make()) == 10
    assert "its manifest is damaged" in caplog.text


def test_one_that_is_ahead_of_the_journal_does_not_count(folder: RunFolder, make: Make) -> None:
    saved(make(), 10, 20)
    folder.journal.write_bytes(b"x" * 15)
    assert loaded_step(make()) == 10


def test_where_none_is_complete_the_run_starts_anew_and_says_so(
    folder: RunFolder, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    saved(make(), 10)
    (folder.checkpoints / "resume" / "step-00000010.pt").unlink()
    assert make().load() is None
    assert "no complete checkpoint; the run starts anew" in caplog.text


def test_what_runs_code_when_it_is_loaded_is_refused(folder: RunFolder, make: Make, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    saved(make(), 10)
    checkpoints = make()
    checkpoints.save({"weights": Bomb()}, 20, 0, 0)  # with a manifest that fits
    assert loaded_step(make()) == 10
    assert not (tmp_path / "exploded").exists()


def test_a_device_that_is_full_at_once(
    folder: RunFolder, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    saved(make(), 10)
    (folder.checkpoints / "resume" / "step-00000020.partial").symlink_to("/dev/full")
    saved(make(), 20)
    assert "no checkpoint at step 20" in caplog.text and "No space left on device" in caplog.text
    assert files(folder) == ["step-00000010.json", "step-00000010.pt"]
    assert loaded_step(make()) == 10


def test_a_disk_that_takes_the_state_and_not_its_mark(
    folder: RunFolder, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    saved(make(), 10)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomically", full)
        saved(make(), 20)
    assert files(folder) == ["step-00000010.json", "step-00000010.pt"]
    assert loaded_step(make()) == 10


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_full_disk_costs_the_new_one_alone(
    asynchronous: bool, folder: RunFolder, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with small_disk(folder.checkpoints / "resume", kilobytes=64):
        checkpoints = make(keep=1, asynchronous=asynchronous)
        saved(checkpoints, 10)
        checkpoints.save(state(20, size=100_000), 20, 0, 0)
        checkpoints.wait()
        assert "no checkpoint at step 20, the older ones stay" in caplog.text
        assert files(folder) == ["step-00000010.json", "step-00000010.pt"]
        assert loaded_step(make()) == 10
        saved(checkpoints, 30)  # there is room for a small one still
        assert loaded_step(make()) == 30


def test_the_asynchronous_one_is_of_its_step_whatever_training_does_next(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, write = threading.Event(), threading.Event(), torch.save

    def slow(*arguments: Any) -> None:
        begun.set()
        assert go_on.wait(60)
        write(*arguments)

    monkeypatch.setattr(torch, "save", slow)
    checkpoints, live = make(asynchronous=True), state(10)
    checkpoints.save(live, 10, best_step=7, journal_bytes=0)
    assert begun.wait(60)  # training did not wait for the writer
    assert checkpoints.best_steps() == {7}  # needed by a run that goes on from it, once it is complete
    live["weights"].zero_()
    live["nested"][0]["step"] = -1
    go_on.set()
    checkpoints.wait()
    assert loaded_step(checkpoints) == 10


def test_when_one_is_due(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    checkpoints, never = make(every_s=5.0), make(every_s=None)
    assert not checkpoints.is_due()
    now = 5.0
    assert checkpoints.is_due() and not never.is_due()
    saved(checkpoints, 1)
    assert not checkpoints.is_due()


def test_the_manifest_says_what_the_files_have_to_be(folder: RunFolder, make: Make) -> None:
    saved(make(), 10)
    manifest = json.loads((folder.checkpoints / "resume" / "step-00000010.json").read_text())
    size = (folder.checkpoints / "resume" / "step-00000010.pt").stat().st_size
    assert manifest == manifest | {"step": 10, "best_step": 5, "bytes": size, "journal_bytes": 10}
