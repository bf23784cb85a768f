"""What the drill on a real SLURM left behind: no run lost, no step lost or there twice, whatever happened to a job."""

import json
import os
import re
from pathlib import Path

import pytest
from cluster import INSTALL, missing_programs
from cluster_drill import ALONE, CANCELLED, KILLED, REQUEUED, SEEDS, TIMED_OUT, Drill, executed

from same_run import assert_same_run, deterministic

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture(scope="session")
def drill(shared_tmp: Path) -> Drill:
    """The finished drill, which mostly has begun already, in the background of earlier tests."""
    if missing := missing_programs():
        pytest.skip(f"no SLURM here ({', '.join(missing)} missing); as root: {INSTALL}")
    return executed(shared_tmp)


def test_jobs_compute_what_local_processes_compute(drill: Drill) -> None:
    assert_same_run(drill.folder("sweep", ALONE), drill.folder("local", ALONE))
    assert len(deterministic(drill.folder("sweep", ALONE))) > 44 and drill.starts("sweep", ALONE) == [1]


def test_a_sweep_is_submitted_once_left_and_followed_again(drill: Drill) -> None:
    array = drill.jobs("sweep", ALONE)[0].partition("_")[0]
    assert [drill.jobs("sweep", seed)[0] for seed in SEEDS] == [f"{array}_{seed}" for seed in SEEDS]
    assert [len(drill.jobs("sweep", seed)) for seed in SEEDS] == [1 + (seed == KILLED) for seed in SEEDS]
    assert drill.code("submitter") == 0 and f"5 runs submitted: {array}\n" in drill.output("submitter")
    assert drill.code("interrupted") == 130
    assert drill.output("interrupted").splitlines()[-1] == (
        f"interrupted: the jobs go on; the same command follows them again, `scancel {array}` ends them"
    )
    # The undisturbed run may have ended.
    assert re.search(r"[45] runs have a job already", drill.output("driver"))


def test_a_killed_job_is_submitted_again_and_the_others_finish(drill: Drill) -> None:
    assert drill.starts("sweep", KILLED) == [1, 1]
    assert "retry 1 of 2" in drill.output("driver")
    assert_same_run(drill.folder("sweep", KILLED), drill.folder("local", KILLED))


def test_a_job_requeued_from_outside_goes_on(drill: Drill) -> None:
    assert drill.starts("sweep", REQUEUED) == [2]
    assert_same_run(drill.folder("sweep", REQUEUED), drill.folder("local", REQUEUED))
    assert "resumed at step 4 of 44" in (drill.folder("sweep", REQUEUED) / "log.txt").read_text()


def test_a_job_at_its_time_limit_goes_on_in_the_next_slice(drill: Drill) -> None:
    assert drill.starts("sweep", TIMED_OUT) == [2]
    assert_same_run(drill.folder("sweep", TIMED_OUT), drill.folder("local", TIMED_OUT))
    log = (drill.folder("sweep", TIMED_OUT) / "log.txt").read_text()
    assert "SIGUSR2 at step 4 of 44" in log and "resumed at step 4 of 44" in log


def test_a_cancelled_job_is_named_and_not_submitted_again(drill: Drill) -> None:
    folder = drill.folder("sweep", CANCELLED)
    assert drill.starts("sweep", CANCELLED) == [1] and not (folder / "summary.json").exists()
    assert json.loads((folder / "failure.json").read_text())["status"] == "interrupted"
    assert drill.code("driver") == 1
    assert "1 of 5 runs did not finish" in drill.output("driver")
    last = drill.output("driver").splitlines()[-1]
    assert last.startswith(
        f"  {folder.name}: interrupted: cancelled (job {drill.jobs('sweep', CANCELLED)[0]}"
    )
    assert last.endswith(f"(log: {folder / 'log.txt'})")


def test_a_preempted_run_on_two_nodes_is_the_run_on_one(drill: Drill) -> None:
    assert (drill.starts("two_nodes"), drill.starts("one_node")) == ([2], [1])
    assert_same_run(drill.folder("two_nodes"), drill.folder("one_node"), ranks=True)
    assert "resumed at step 4 of 44" in (drill.folder("two_nodes") / "log.txt").read_text()
    for name, node in (
        ("two_nodes", "node=1(2), global_rank=1(2)"),
        ("one_node", "node=0(1), global_rank=1(2)"),
    ):
        slurm = drill.runs / name / "slurm"
        assert node in (slurm / f"{drill.jobs(name)[0]}_1_log.out").read_text()
        assert json.loads((drill.folder(name) / "summary.json").read_text())["labels"]["system"] == "zero2"


def test_runs_share_an_allocation_and_its_requeue(drill: Drill) -> None:
    assert drill.code("packed") == 0
    assert len({tuple(drill.jobs("packed", seed)) for seed in range(3)}) == 1
    assert drill.starts("packed") == [2]
    for seed in range(3):
        assert_same_run(drill.folder("packed", seed), drill.folder("local", seed))
    assert "resumed at step 4 of 44" in (drill.folder("packed", 0) / "log.txt").read_text()


def test_nothing_is_left_of_the_cluster(drill: Drill) -> None:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_slurm = (process / "comm").read_text().startswith("slurm")
            environment = (process / "environ").read_bytes() if is_slurm else b""
        except OSError:  # it has ended
            continue
        assert os.fsencode(drill.root / "cluster") not in environment, process
