"""`python -m pmexp.runs retry` runs again what has no result, in its own folder, and no damaged result."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from demo_experiment import Demo, failure, summary
from hydra_plugins.pmexp_launchers import local  # Hydra makes the class in it anew
from pmexp.config import RunConfig
from pmexp.errors import SweepFailed
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.journal import digest_of_journal
from small_runs import TINY_VIT


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], list[RunConfig]]]:
    """Keeps (the launcher's keys, the runs) of each sweep, in the place of executing it."""
    calls: list[tuple[dict[str, Any], list[RunConfig]]] = []
    monkeypatch.setattr(
        local.LocalLauncher, "sweep", lambda self, runs: calls.append((vars(self), list(runs)))
    )
    return calls


def test_retry_runs_again_what_has_no_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], swept: list[tuple[dict[str, Any], list[RunConfig]]]
) -> None:
    demo = Demo(tmp_path / "runs", capsys)
    failed = demo.configured("seed=1", failure=failure("failed", "ValueError: no"))
    stale = demo.configured("seed=2", "variant=pm-drop", "tracking.uri=http://host:5000")
    demo.configured("seed=3", summary=summary())
    demo.configured("seed=4", summary=summary("oom", error="no room"))
    assert demo("retry", "demo", "hydra.launcher.n_jobs=3")[0] == 0
    assert demo("retry", "demo", "variant=pm-drop")[0] == 0
    assert demo("retry", "demo", "--state", "failed")[0] == 0
    (keys, both), (_, pm_drop), (_, state) = swept
    assert keys["_n_jobs"] == 3
    assert sorted(run.run_id for run in both) == sorted([failed.run_id, stale.run_id])
    assert pm_drop == [stale] and state == [failed]


def test_a_moved_experiment_is_run_again_where_it_lies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], swept: list[tuple[dict[str, Any], list[RunConfig]]]
) -> None:
    demo = Demo(tmp_path / "runs", capsys)
    run = demo.configured(failure=failure("failed", "ValueError: no"))
    demo.runs_dir = demo.runs_dir.rename(tmp_path / "moved")
    assert demo("retry", "demo")[0] == 0
    ((_, (again,)),) = swept
    assert again.run_id == run.run_id and again.folder == tmp_path / "moved" / "demo" / run.run_id
    assert again.tracking.uri == f"sqlite:///{tmp_path}/moved/mlflow.db"


def test_a_configuration_of_another_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = Demo(tmp_path / "runs", capsys)
    run = demo.configured(failure=failure("failed", "ValueError: no"))
    file = run.folder / "config.yaml"
    file.write_text(file.read_text().replace("seed: 0", "seed: 1", 1))
    code, _, err = demo("retry", "demo")
    assert code == 2 and err.count("\n") == 1 and f"{file} is of run baseline-s1-" in err


def test_nothing_to_run_again_is_said(demo: Demo, swept: list[Any]) -> None:
    assert demo("retry", "demo", "--state", "stale", "variant=baseline")[1] == "demo: nothing to retry\n"
    assert swept == []


def test_a_damaged_result_is_not_run_again_but_named(demo: Demo) -> None:
    run = demo.configured()
    (run.folder / "summary.json").write_text("{nonsense")
    for name in ("failed", "interrupted", "stale"):
        (demo.folder / name / "owner.json").unlink()
        (demo.folder / name / "failure.json").unlink(missing_ok=True)
    code, _, err = demo("retry", "demo")
    assert code == 2 and err.startswith(f"error: {run.folder / 'summary.json'} is damaged")


def test_a_damaged_result_has_its_own_advice_in_the_list(demo: Demo) -> None:
    """Retry refuses it, so the list says what helps; the others are still to be run again."""
    damaged = [RunFolder(demo.folder / name) for name in ("finished", "oom")]
    ended = asdict(digest_of_journal(damaged[0].journal.read_bytes() + b"more"))
    damaged[0].summary.write_text(json.dumps(summary(journal=ended)))
    damaged[1].summary.write_text("{nonsense")
    removed = f"remove {damaged[0].path} {damaged[1].path}, and start the same command as before"
    assert demo("demo", "--state", "failed")[1].splitlines()[-2] == f"damaged: 2 results; {removed}"
    for name in ("failed", "interrupted", "stale"):
        shutil.rmtree(demo.folder / name)
    out = demo("demo")[1]
    assert out.splitlines()[-1].startswith("damaged: 2 results; ") and "retry" not in out


def test_a_run_that_fails_again_is_exit_code_1(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise SweepFailed("1 of 1 run did not finish")

    monkeypatch.setattr(local.LocalLauncher, "sweep", fail)
    demo.configured(failure=failure("failed", "ValueError: no"))
    code, _, err = demo("retry", "demo", "--state", "failed", "variant=baseline")
    assert (code, err) == (1, "1 of 1 run did not finish\n")


def test_a_run_that_is_run_again_goes_on_in_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pmexp.training import run as experiment

    demo = Demo(tmp_path / "runs", capsys)
    run = demo.configured(
        *TINY_VIT, "train.max_steps=2", "tracking=off", failure=failure("failed", "ValueError: no")
    )
    monkeypatch.setattr(
        local.LocalLauncher, "sweep", lambda self, runs: [experiment.run(each) for each in runs]
    )
    code, out, _ = demo("retry", "demo")
    assert code == 0 and "demo: retrying 1 run: 1 failed" in out
    listed = demo.objects()
    assert list(listed) == [run.run_id]
    again = listed[run.run_id]
    assert (again["state"], again["step"], again["attempt"], again["error"]) == ("finished", 2, 3, None)
