"""level=start and level=report measure processes, and show no figure of a way that did something else."""

import csv
from pathlib import Path

import pytest

from pmexp.bench import start
from pmexp.bench.command import main
from run_folders import Runs


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "runs")


@pytest.mark.slow
def test_a_run_is_timed_to_the_end_of_its_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "WARM_UP", 0)
    monkeypatch.setattr(start, "WAYS", {"tracking=off": ["tracking=off"]})
    assert main(["level=start", "turns=1", f"out={tmp_path}"]) == 0, capsys.readouterr().err
    bare, ours = rows(tmp_path / "start.csv")
    assert (bare["way"], ours["way"]) == ("bare script", "tracking=off")
    assert float(bare["ratio"]) == 1.0 and float(ours["seconds"]) > 1 and float(ours["cpu_s"]) > 1


def test_reports_of_more_runs_are_counted_and_timed(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(2):
        for variant in ("baseline", "pm-drop"):
            path = runs.finished(variant, seed, {"memory/peak_bytes": 10.0 + seed}, settings={"seed": seed})
            (path / "config.yaml").write_text("name: demo\n")
    given = ["level=report", "name=demo", f"runs_dir={runs.root}", "runs=4,10", f"out={tmp_path / 'out'}"]
    assert main(given) == 0, capsys.readouterr().err
    told = rows(tmp_path / "out" / "report.csv")
    assert [row["runs"] for row in told] == ["4", "10"] and float(told[0]["times_the_smallest"]) == 1.0
    assert all(float(row["cpu_s"]) > 0.5 and float(row["peak_mib"]) > 50 for row in told)


def test_an_experiment_without_finished_runs_is_one_line(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.unfinished("baseline", 0)
    assert main(["level=report", "name=demo", f"runs_dir={runs.root}"]) == 2
    assert "demo has no finished run to copy" in capsys.readouterr().err
