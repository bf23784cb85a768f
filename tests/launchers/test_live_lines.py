"""The lines of a sweep: which run, what tells it apart, how long it took, and how far the sweep is."""

import itertools
import math
from pathlib import Path

import pytest
from rich.console import Console

from composed import config
from hydra_plugins.pmexp_launchers import live_view, progress
from hydra_plugins.pmexp_launchers.progress import SweepProgress
from hydra_plugins.pmexp_launchers.sweep import Outcome, failures_text, names_of
from pmexp.run_folder.state import State
from pmexp.shown import duration


def test_a_line_names_what_the_sweep_varies_and_how_far_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [
        config(f"runs_dir={tmp_path}", f"train.lr={lr}", f"variant.p={p}")
        for lr, p in itertools.product((0.001, 2e-5), (0.1, 0.3))
    ]
    names = names_of({run.folder: run for run in runs})
    assert len({name.partition(" ")[2] for name in names.values()}) == 4
    now = 0.0
    monkeypatch.setattr(live_view.time, "monotonic", lambda: now)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    view = SweepProgress(runs, names, n_jobs=2)
    view.started(runs[1])
    now = 12.3
    view.ended(runs[1], Outcome(State.finished))
    view.started(runs[2])
    now = 412.0
    view.ended(runs[2], Outcome(State.failed, "ValueError: no"))
    view.ended(runs[0], Outcome(State.finished))  # another process finished it
    of = [run.run_id for run in runs]
    assert capsys.readouterr().out.splitlines() == [
        f"{of[1]} variant.p=0.3 train.lr=0.001 finished (12 s; 1 of 4 in 12 s)",
        f"{of[2]} variant.p=0.1 train.lr=2e-05 failed (6 min 40 s; 2 of 4 in 6 min 52 s): ValueError: no",
        f"{of[0]} variant.p=0.1 train.lr=0.001 finished (3 of 4 in 6 min 52 s)",
    ]
    view._console = Console(force_terminal=True, width=120, record=True)
    view.show([runs[3]])
    view._console.print(view._live.renderable)
    assert view._console.export_text().splitlines() == [
        "3 of 4 runs ended, about 52 s left",
        f"  {of[3]} variant.p=0.3 train.lr=2e-05 starting",
    ]
    failed = {runs[2].folder: Outcome(State.failed, "ValueError: no")}
    assert f"\n  {of[2]} variant.p=0.1 train.lr=2e-05: failed: ValueError: no (log: " in failures_text(
        failed, names
    )


def test_a_sweep_over_seeds_is_named_by_ids_alone(tmp_path: Path) -> None:
    runs = [config(f"runs_dir={tmp_path}", f"seed={seed}") for seed in range(2)]
    assert list(names_of({run.folder: run for run in runs}).values()) == [run.run_id for run in runs]
    assert names_of({}) == {}


def test_a_time_is_said_in_two_units_at_most() -> None:
    said = {0.04: "0.0 s", 9.94: "9.9 s", 9.96: "10 s", 99.4: "99 s", 100: "1 min 40 s", 5999: "99 min 59 s"}
    assert {seconds: duration(seconds) for seconds in said} == said
    assert duration(6000) == "1 h 40 min" and duration(100 * 3600.0) == "100 h 0 min"
    assert all(duration(x) for x in (math.pi, 1e9))
