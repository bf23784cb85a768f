"""How far a run has come is shown between its steps: on a terminal in a line, else once a minute in the log."""

import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pmexp.measure.timing import StepTimer
from pmexp.training import progress_line
from pmexp.training.progress_line import ProgressLine
from small_runs import TINY_VIT, Runs

SHORT = [*TINY_VIT, "train.max_steps=4", "train.log_every=2", "train.evaluate_every=2", "tracking=off"]
SAID = re.compile(r"step (\d+)/4  loss [\d.]+  [\d,]+ samples/s  [\d,]+ MiB(?:  0:00:\d\d left)?")
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Puts a terminal in the place of stderr. A fixture could not: pytest puts its own back before the test."""
    stream = Terminal()
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress_line, "_DRAW_SECONDS", 0.0)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # ours is then the one
    return stream


def weights(summary: Path) -> str:
    digest: str = json.loads(summary.read_text())["outcome"]["weights_sha256"]
    return digest


def test_a_terminal_has_a_line_between_steps_and_a_log_has_lines_of_the_very_same_run(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = at_a_terminal(monkeypatch)
    in_step = False
    step, stepped = StepTimer.step, ProgressLine.stepped

    @contextmanager
    def timed(self: StepTimer) -> Iterator[None]:
        nonlocal in_step
        with step(self):
            in_step = True
            yield
            in_step = False

    def checked(self: ProgressLine, number: int, metrics: dict[str, float], seconds: float) -> None:
        assert not in_step
        stepped(self, number, metrics, seconds)

    monkeypatch.setattr(StepTimer, "step", timed)
    monkeypatch.setattr(ProgressLine, "stepped", checked)
    assert runs.train(*SHORT)[0] == 0
    shown = [piece for line in ANSI.sub("\n", terminal.getvalue()).splitlines() for piece in line.split("\r")]
    drawn = [told[1] for line in shown if (told := SAID.fullmatch(line.strip()))]
    assert list(dict.fromkeys(drawn)) == ["1", "2", "3", "4"]
    # Values are shown as they are.
    assert any(re.fullmatch(r"step 2/4 train/loss=.* progress/epoch=\S+", line) for line in shown)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(progress_line, "_LOG_SECONDS", 0.0)
    assert runs.train(*SHORT, "name=logged")[0] == 0
    drawn_run, logged_run = sorted(runs.folder.glob("*/*/summary.json"))
    lines = SAID.finditer((logged_run.parent / "log.txt").read_text())
    assert [line[1] for line in lines] == ["1", "2", "3", "4"]
    assert weights(drawn_run) == weights(logged_run)


def line_at(now: list[float], monkeypatch: pytest.MonkeyPatch) -> ProgressLine:
    """A line of a training from step 100 to 1100 that evaluates every 200 steps."""
    monkeypatch.setattr(progress_line.time, "monotonic", lambda: now[0])
    return ProgressLine(100, 1100, 32, lambda: 3 * 2**20, lambda step: step // 200)


def test_speed_is_of_the_steps_since_the_last_line_and_the_time_left_counts_what_comes_between(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pmexp")
    now = [0.0]
    line = line_at(now, monkeypatch)
    with line.shown(is_first=True):
        for step in range(101, 501):
            if step % 200 == 0:
                now[0] += 50.0  # an evaluation
            own = 30.0 if step == 101 else 0.5  # the first step compiles
            now[0] += own
            line.stepped(step, {"train/loss": 0.5} if step == 101 else {}, own)
    said = [record.message for record in caplog.records]
    before_an_evaluation = "step 161/1100  loss 0.5  33 samples/s  3 MiB  0:07:50 left"
    assert said[0] == before_an_evaluation
    ends = {int(line.split()[1].partition("/")[0]): line.partition("0.5  ")[2] for line in said[1:]}
    assert set(ends) == {200, 320, 400}
    # 0.5 s a step, and 50 s for each of the evaluations after 400, 600, 800 and 1000.
    assert ends[200] == "64 samples/s  3 MiB  0:10:50 left"
    assert ends[320] == "64 samples/s  3 MiB  0:09:50 left"
    assert ends[400] == "64 samples/s  3 MiB  0:08:20 left"


def test_the_line_below_an_evaluation_is_not_of_an_earlier_step(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_a_terminal(monkeypatch)
    monkeypatch.setattr(progress_line, "_DRAW_SECONDS", 99.0)
    line = line_at([0.0], monkeypatch)
    with line.shown(is_first=True):
        for step in range(101, 201):
            line.stepped(step, {"val/loss": 1.0} if step == 200 else {}, 0.5)
        print("step 200/1100 val/loss=1", file=sys.stderr)
    pieces = ANSI.sub("\n", terminal.getvalue()).replace("\r", "\n").splitlines()
    steps = [int(told[1]) for piece in pieces if (told := re.match(r"step (\d+)/1100", piece.strip()))]
    assert 200 in steps and steps == sorted(steps)


def test_of_several_ranks_one_says_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pmexp")
    now = [0.0]
    line = line_at(now, monkeypatch)
    with line.shown(is_first=False):
        now[0] = 999.0
        line.stepped(101, {"train/loss": 0.5}, 999.0)
    assert caplog.records == []


def test_a_terminal_that_is_gone_stops_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    at_a_terminal(monkeypatch)
    line = line_at([0.0], monkeypatch)
    with line.shown(is_first=True):
        line.stepped(101, {}, 0.5)
        for name in ("update", "stop"):
            monkeypatch.setattr(line._live, name, lambda *_, **__: (_ for _ in ()).throw(OSError(5, "EIO")))
        line.stepped(102, {}, 0.5)
        line.stepped(103, {}, 0.5)
