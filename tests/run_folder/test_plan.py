"""plan.json: what is damaged is named, and mended by what the message says."""

import os
from pathlib import Path

import pytest

from composed import config
from pmexp.errors import MachineError, UserError
from pmexp.run_folder.plan import add_to_plan, drop_from_plan, read_plan
from small_runs import TINY_VIT, Runs

DAMAGED = ["", "{", "[1]", '{"a": 1}', '[{"run_id": "../../x"}]', "null", "[" * 20_000, "\x00", "\ud800"]


def planned(*seeds: int) -> list[tuple[str, dict[str, str | int], dict[str, object]]]:
    labels = config().labels
    return [(f"run-{seed}", labels | {"seed": seed}, {"train.lr": 0.1, "bits": [1]}) for seed in seeds]


@pytest.mark.parametrize("content", DAMAGED)
@pytest.mark.parametrize("how", ["removed", "started again"])
def test_a_damaged_plan_is_mended_as_its_message_says(content: str, how: str, tmp_path: Path) -> None:
    add_to_plan(tmp_path, planned(0, 1))
    whole = (tmp_path / "plan.json").read_bytes()
    (tmp_path / "plan.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    if content != "null":
        with pytest.raises(UserError, match="remove it"):
            read_plan(tmp_path)
    if how == "removed":
        (tmp_path / "plan.json").unlink()
        assert read_plan(tmp_path) == {}
    add_to_plan(tmp_path, planned(0, 1))
    assert (tmp_path / "plan.json").read_bytes() == whole


def test_a_plan_that_has_them_all_is_left_alone(tmp_path: Path) -> None:
    add_to_plan(tmp_path, planned(0, 1))
    before = (tmp_path / "plan.json").stat().st_mtime_ns
    add_to_plan(tmp_path, planned(1))
    assert (tmp_path / "plan.json").stat().st_mtime_ns == before
    add_to_plan(tmp_path, planned(2))
    assert list(read_plan(tmp_path)) == ["run-0", "run-1", "run-2"]
    drop_from_plan(tmp_path, "run-1")
    assert list(read_plan(tmp_path)) == ["run-0", "run-2"]


def test_a_plan_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "plan.json").mkdir()
    with pytest.raises(UserError, match=rf"^runs_dir: nothing can be written in {tmp_path}/plan.json \("):
        add_to_plan(tmp_path, planned(0))
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".json"] == ["plan.json"]


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_starting_a_finished_sweep_again_mends_its_plan(content: str, runs: Runs) -> None:
    """The message of the list says so; nothing is executed for it."""
    run = config(*TINY_VIT, f"runs_dir={runs.folder}", "tracking=off", "train.max_steps=2")
    run.folder.mkdir(parents=True)
    (run.folder / "summary.json").write_text('{"status": "finished"}')
    plan = run.folder.parent / "plan.json"
    plan.write_text(content)
    code, out, err = runs.train("-m", *TINY_VIT, "tracking=off", "train.max_steps=2")
    assert code == 0 and "1 run, 1 of them finished before" in out, err
    assert list(read_plan(run.folder.parent)) == [run.run_id]
    os.utime(plan, (1, 1))
    assert runs.train("-m", *TINY_VIT, "tracking=off", "train.max_steps=2")[0] == 0
    assert plan.stat().st_mtime == 1


def test_a_full_disk_is_the_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("pmexp.run_folder.plan.write_atomically", full)
    with pytest.raises(MachineError, match=f"there is no room in {tmp_path}"):
        add_to_plan(tmp_path, planned(0))
