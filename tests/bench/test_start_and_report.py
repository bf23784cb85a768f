"""level=start and level=report measure processes, and show no figure of a way that did something else."""

import csv
from pathlib import Path

import pytest

from pmexp.bench import start
from pmexp.bench.command import main
from pmexp.bench.processes import execute


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
def test_a_run_is_timed_to_the_end_of_its_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "WARM_UP", 0)
    monkeypatch.setattr(start, "WAYS", ("tracking=off",))
    assert main(["level=start", "turns=1", f"out={tmp_path}"]) == 0, capsys.readouterr().err
    bare, ours = rows(tmp_path / "start.csv")
    assert (bare["way"], ours["way"]) == ("bare script", "tracking=off")
    assert float(bare["ratio"]) == 1.0 and float(ours["seconds"]) > 1 and float(ours["cpu_s"]) > 1


def test_a_process_that_is_timed_may_keep_compiled_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert execute(["-Sc", "import sys; print(sys.dont_write_bytecode)"], tmp_path).stdout == "False\n"


def test_reports_of_more_runs_are_counted_and_timed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["level=report", "runs=20,40", f"out={tmp_path}"]) == 0, capsys.readouterr().err
    _, *lines, written = capsys.readouterr().out.splitlines()
    head, *rows = Path(written).read_text().splitlines()
    assert (head, [row.split(",")[1] for row in rows]) == ("tree,runs,cpu_s,clock_s,memory_mb", ["20", "40"])
    assert [line.rpartition(": ")[0].rpartition(": ")[2] for line in lines] == ["20 runs", "40 runs"]
    assert all(" ms of it a run" in line for line in lines)


def test_a_number_of_runs_that_is_none_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["level=report", "runs=many"]) == 2
    assert "runs: 'many' is no number of runs" in capsys.readouterr().err
