"""Reading a journal: whole, from its end, and with lines that are no records."""

import json
import math
import os
from pathlib import Path

import pytest

from pmexp.errors import UserError
from pmexp.run_folder import journal_lines
from pmexp.run_folder.files import read_content
from pmexp.run_folder.journal import Journal
from pmexp.run_folder.journal_lines import lines_backwards, progress_of, read_lines

GARBAGE = ["{nonsense", "[]", "5", '{"metric": "train/loss"}', "\x00\x00", "[" * 100_000, '{"step": "1"}']


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def write(file: Path, steps: int) -> None:
    with Journal(file) as opened:
        opened.write(0, {"progress/steps_total": 5000})
        for step in range(1, steps + 1):
            opened.write(step, {"train/loss": 1 / step, "grad/norm": 1.0})


@pytest.mark.parametrize("block", [1, 7, 100, 8192])
def test_backwards_is_forwards_turned_round(file: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_lines, "_BLOCK_BYTES", block)
    write(file, steps=30)
    with file.open("a") as stream:
        stream.write('{"metric": "cut')
    assert list(lines_backwards(file)) == [record for record, _ in read_lines(file)][::-1]


@pytest.mark.parametrize("content", ["", "\n", '{"metric": "cut'])
def test_a_journal_without_a_whole_record(file: Path, content: str) -> None:
    file.write_text(content)
    assert list(lines_backwards(file)) == []
    assert progress_of(file).step == 0


def test_progress_is_the_last_step_and_the_last_loss(file: Path) -> None:
    assert str(progress_of(file)) == str(progress_of(file.parent / "nowhere"))  # its loss, NaN, equals none
    write(file, steps=400)
    with Journal(file, file.stat().st_size) as opened:
        for step in range(401, 700):  # more than one block
            opened.write(step, {"grad/norm": 1.0})
    progress = progress_of(file)
    assert (progress.step, progress.total, progress.loss) == (699, 5000, 1 / 400)


def test_a_loss_that_is_not_finite_is_told_as_such(file: Path) -> None:
    with Journal(file) as opened:
        opened.write(1, {"train/loss": 0.5})
        opened.write(2, {"train/loss": math.inf})
    assert math.isnan(progress_of(file).loss)


def test_of_a_long_journal_only_the_ends_are_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(file, steps=2000)
    parsed, read = journal_lines._parsed, []
    monkeypatch.setattr(journal_lines, "_parsed", lambda line: [parsed(line), read.append(line)][0])
    progress = progress_of(file)
    assert (progress.step, progress.total) == (2000, 5000)
    assert len(read) < 10


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_a_line_that_is_no_record_is_named(file: Path, garbage: str) -> None:
    write(file, steps=1)
    good, whole = file.read_bytes(), list(lines_backwards(file))
    file.write_bytes(good + garbage.encode() + b"\n" + good.splitlines(keepends=True)[1])
    for offset in (0, len(good)):
        with pytest.raises(UserError, match=f"^{file}, line 4 is no line of a journal"):
            list(read_lines(file, offset))
    assert list(lines_backwards(file)) == [*map(json.loads, good.splitlines()[1:2]), *whole]
    assert progress_of(file).step == 1
    file.write_bytes(good + garbage.encode() + b"\n")
    progress = progress_of(file)
    assert (progress.step, progress.loss) == (1, 1.0)


def test_a_file_without_line_ends_is_read_in_a_moment(file: Path) -> None:
    file.write_bytes(b"x" * 10_000_000)
    assert list(lines_backwards(file)) == []
    assert progress_of(file).step == 0


def test_files_without_a_length_and_large_ones_are_read_whole(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(os.urandom(3 * 2**20))
    assert read_content(large) == large.read_bytes()
    version = Path("/proc/version")  # the system says 0 bytes of it
    assert version.stat().st_size == 0 and read_content(version) == version.read_bytes() != b""


def test_last_values_up_to_a_step_have_those_of_that_step(file: Path) -> None:
    with Journal(file) as journal:
        for step, loss in ((5, 0.5), (10, math.nan), (15, 0.1)):
            journal.write(step, {"val/loss": loss, "val/accuracy": step / 100})
        assert journal.last_values(up_to_step=5) == {"val/loss": 0.5, "val/accuracy": 0.05}
        assert math.isnan(journal.last_values(up_to_step=14)["val/loss"])
        assert journal.last_values() == {"val/loss": 0.1, "val/accuracy": 0.15}
