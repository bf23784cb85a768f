"""The SLURM launcher against commands that only pretend: what is submitted, what is said, what is judged."""

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from fake_slurm import FakeSlurm
from hydra_plugins.pmexp_launchers import processes, slurm_commands, slurm_job
from hydra_plugins.pmexp_launchers.slurm import SlurmLauncher
from hydra_plugins.pmexp_launchers.slurm_commands import QueuedJob
from hydra_plugins.pmexp_launchers.slurm_driver import Driver
from hydra_plugins.pmexp_launchers.slurm_job import SlurmJob
from hydra_plugins.pmexp_launchers.slurm_resources import PACKAGED, load
from hydra_plugins.pmexp_launchers.slurm_view import QueueView
from hydra_plugins.pmexp_launchers.submissions import Job
from hydra_plugins.pmexp_launchers.sweep import names_of
from pmexp.command.compose import compose
from pmexp.config import SHARDING, Part, RunConfig, SystemConfig
from pmexp.errors import UserError
from pmexp.run_folder.failure import FailureKind
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.state import State
from small_runs import TINY_VIT, Runs

SWEEP = [
    "-m",
    *TINY_VIT,
    "hydra/launcher=slurm",
    "hydra.launcher.poll_s=0.01",
    "tracking=off",
    "system.device=cpu",
]
DETACH = [*SWEEP, "hydra.launcher.detach=true"]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    monkeypatch.setattr(processes, "check", lambda runs, here: None)
    return FakeSlurm(tmp_path / "slurm", monkeypatch)


def queue_view(runs: Sequence[RunConfig]) -> QueueView:
    return QueueView(runs, names_of({run.folder: run for run in runs}))


def options(script: str) -> dict[str, str]:
    directives = re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script, re.MULTILINE)
    return dict(directives)


def test_a_dry_run_says_what_is_to_do_and_writes_nothing(runs: Runs, slurm: FakeSlurm) -> None:
    code, out, err = runs.train(*SWEEP, "seed=0,1", "hydra.launcher.dry_run=true")
    assert code == 0, err
    assert re.search(r"baseline-s0-\w+: to do\nbaseline-s1-\w+: to do\n", out)
    assert options(out)["array"] == "0-1%2" and "submitit.core._submit" in out
    assert not runs.folder.exists() and slurm.scripts() == []


def test_a_long_sweep_is_cut_and_as_many_jobs_run_as_are_allowed(runs: Runs, slurm: FakeSlurm) -> None:
    slurm.tell("config", "MaxArraySize = 2\n")
    code, out, err = runs.train(*DETACH, "seed=0,1,2", "hydra.launcher.array_parallelism=1")
    assert code == 0 and "3 runs submitted: 1 2" in out, err
    first, second = map(options, slurm.scripts())
    assert first["array"] == "0-1%1" and "array" not in second
    assert "dependency" not in first and second["dependency"] == "afterany:1"


def test_runs_are_packed(runs: Runs, slurm: FakeSlurm) -> None:
    assert runs.train(*DETACH, "seed=0,1,2", "hydra.launcher.runs_per_job=2")[0] == 0
    record = (runs.folder / "default" / "slurm" / "submissions.jsonl").read_text().splitlines()
    assert [(each["job"], len(each["runs"])) for each in map(json.loads, record)] == [("1_0", 2), ("1_1", 1)]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of resources."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "default.yaml").write_text(
        "partition: gpu\ntime_min: 60\nsbatch: {qos: long}\nsetup: [module load cuda]\n"
    )
    return folder


def test_resources_come_from_files_and_the_command_line(runs: Runs, slurm: FakeSlurm, site: Path) -> None:
    given = ["hydra.launcher.time_min=90", "+hydra.launcher.sbatch.exclude=n7"]
    code, _, err = runs.train(*DETACH, f"hydra.launcher.resources={site}", *given)
    assert code == 0, err
    (script,) = slurm.scripts()
    asked = options(script)
    assert (asked["partition"], asked["time"], asked["qos"], asked["signal"]) == (
        "gpu",
        "90",
        "long",
        "USR2@120",
    )
    assert asked["exclude"] == "n7"
    assert "gpus-per-node" not in asked and "requeue" in asked and "wckey" not in asked
    assert "module load cuda\n" in script and "--kill-on-bad-exit=1" in script


def test_a_credential_of_the_setup_is_executed_and_in_no_script_or_record(
    runs: Runs, slurm: FakeSlurm, site: Path, tmp_path: Path
) -> None:
    """SLURM keeps the script and may show it to others; the lines are in a file that only the user can read."""
    lines = ["export PGPASSWORD='planted 1'", "export X=$PGPASSWORD"]
    (site / "default.yaml").write_text(yaml.safe_dump({"setup": lines}))
    given = [*DETACH, "seed=0,1", f"hydra.launcher.resources={site}"]
    code, out, _ = runs.train(*given, "hydra.launcher.dry_run=true")
    assert (
        code == 0 and "export PGPASSWORD='***'\n" in out and "planted" not in out and not runs.folder.exists()
    )
    assert runs.train(*given)[0] == 0
    (script,) = slurm.scripts()
    (setup,) = runs.folder.glob("*/slurm/setup-*.sh")
    assert "planted" not in script and f". {setup}\n" in script and setup.stat().st_mode & 0o777 == 0o600
    start = script[script.index("# setup") : script.index("# command")]
    done = subprocess.run(["bash", "-c", f"{start}\necho $X"], capture_output=True, text=True)
    assert done.stdout == "planted 1\n"
    files = [file for file in runs.folder.rglob("*") if file.is_file() and file != setup]
    assert [file for file in files if b"planted" in file.read_bytes()] == []


def test_a_setup_without_credentials_stays_in_the_script(runs: Runs, slurm: FakeSlurm) -> None:
    code, _, err = runs.train(*DETACH, 'hydra.launcher.setup=["export HF_HOME=/x", module load gcc]')
    assert code == 0, err
    assert "# setup\nexport HF_HOME=/x\nmodule load gcc\n" in slurm.scripts()[0]
    assert list(runs.folder.glob("*/slurm/setup-*")) == []


def test_a_system_part_has_resources_of_its_own(site: Path) -> None:
    (site / "zero2.yaml").write_text("nodes: 2\nmem_gb: 1.5\nsbatch: {constraint: a100}\n")
    system = SystemConfig(parts=[Part.zero2, Part.flash], processes=4)
    asked = load(site, system, {"time_min": 90}).parameters(system)
    assert (asked["nodes"], asked["ntasks_per_node"], asked["gpus_per_node"]) == (2, 2, 2)
    assert (asked["mem"], asked["time"], asked["partition"]) == ("1536M", 90, "gpu")
    assert asked["additional_parameters"] == {"requeue": True, "qos": "long", "constraint": "a100"}
    assert "nodes" not in (site / "default.yaml").read_text() and load(site, SystemConfig(), {}).nodes == 1


def test_the_packaged_resources_are_right() -> None:
    for part in (part for part in Part if part in SHARDING):
        assert load(PACKAGED, SystemConfig(parts=[part], processes=2), {}).gpus_per_task == 1


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "default.yaml",
            "memory: 3",
            "default.yaml: 'memory' is not a key; allowed are partition, account, nodes",
        ),
        (
            "default.yaml",
            "time_min: long",
            "default.yaml: time_min='long': Value 'long' of type 'str' could not",
        ),
        ("default.yaml", "nodes: [", "default.yaml: is not YAML"),
        ("default.yaml", "- nodes", "default.yaml: must hold keys and values"),
        ("default.yaml", "nodes: 0", "hydra.launcher.nodes: 0 must be at least 1"),
        (
            "default.yaml",
            "time_min: 1",
            "signal_before_end_s: 120 leaves nothing of time_min=1; allowed are 1 to 59",
        ),
        ("default.yaml", "mem_gb: -1", "hydra.launcher.mem_gb: -1.0 must be positive"),
        ("default.yaml", "nodes: 2", "hydra.launcher.nodes: 2 nodes cannot share system.processes=1 evenly"),
        (
            "default.yaml",
            "sbatch: {time: 10}",
            "sbatch.time: is decided by hydra.launcher.time_min; leave it out",
        ),
        (
            "default.yaml",
            "sbatch: {ntasks_per_node: 2}",
            "sbatch.ntasks_per_node: is decided by system.processes",
        ),
        (
            "default.yaml",
            "sbatch: {output: x}",
            "hydra.launcher.sbatch.output: is decided by the launcher itself",
        ),
        (
            "default.yaml",
            "sbatch: {constraint: [a, b]}",
            "sbatch.constraint: ['a', 'b'] is no value of an option",
        ),
        ("default.yaml", "sbatch: {exclusive: false}", "sbatch.exclusive: False is no value of an option"),
        ("zero3.yaml", "", "zero3.yaml: no system part is named so; allowed are default, ddp"),
    ],
)
def test_wrong_resources_are_one_line(name: str, text: str, words: str, site: Path) -> None:
    (site / name).write_text(text)
    with pytest.raises(UserError) as raised:
        load(site, SystemConfig(), {}).parameters(SystemConfig())
    assert words in str(raised.value) and len(str(raised.value).splitlines()) == 1


def test_an_option_that_is_null_is_left_out(site: Path) -> None:
    parameters = load(site, SystemConfig(), {"sbatch": {"qos": None, "exclusive": True}}).parameters(
        SystemConfig()
    )
    assert parameters["additional_parameters"] == {"requeue": True, "exclusive": True}


def test_a_folder_without_defaults_is_one_line(runs: Runs, slurm: FakeSlurm, tmp_path: Path) -> None:
    code, _, err = runs.train(*DETACH, f"hydra.launcher.resources={tmp_path}")
    assert (
        code == 2
        and f"{tmp_path} has no default.yaml; pmexp slurm-resources FOLDER writes" in err
        and len(err.splitlines()) == 1
    )


@pytest.mark.parametrize("key", ["runs_per_job", "n_jobs", "array_parallelism", "poll_s"])
def test_wrong_keys_of_the_launcher_are_named(key: str, slurm: FakeSlurm) -> None:
    with pytest.raises(UserError, match=f"^hydra.launcher.{key}: 0 must be "):
        SlurmLauncher(**{key: 0}).check()


def test_what_sbatch_refuses_is_one_line_of_its_own(runs: Runs, slurm: FakeSlurm) -> None:
    slurm.tell("refusal", "sbatch: error: invalid partition specified: nope\n")
    code, _, err = runs.train(*DETACH, "hydra.launcher.partition=nope")
    assert (
        code == 2 and err == "error: hydra/launcher=slurm: sbatch: error: invalid partition specified: nope\n"
    )


@pytest.mark.parametrize("name", ["50%j", "back\\slash"])
def test_a_path_that_slurm_would_change_is_refused(
    name: str, runs: Runs, slurm: FakeSlurm, tmp_path: Path
) -> None:
    """The output of a job would lie elsewhere, and the job be taken for one that left nothing."""
    runs.folder = tmp_path / name
    code, _, err = runs.train(*DETACH)
    assert code == 2 and err.startswith(
        f"error: runs_dir: SLURM cannot keep the output of jobs in {tmp_path / name}"
    )
    assert len(err.splitlines()) == 1 and slurm.scripts() == [] and not (tmp_path / name).exists()


def test_an_interrupted_submission_is_on_record(runs: Runs, slurm: FakeSlurm) -> None:
    """Jobs on no record would be submitted once more by the next command."""
    slurm.tell("interrupted")
    slurm.tell("lasting")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has it ignored
    try:
        code, _, err = runs.train(*DETACH, "seed=0,1")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (code, err) == (
        130,
        "interrupted: the jobs go on; the same command follows them again, `scancel 1` ends them\n",
    )
    code, out, _ = runs.train(*DETACH, "seed=0,1")
    assert code == 0 and "2 runs have a job already: 1\n" in out and len(slurm.scripts()) == 1


def test_a_line_that_is_no_record_of_a_job_is_named(runs: Runs, slurm: FakeSlurm) -> None:
    record = runs.folder / "default" / "slurm" / "submissions.jsonl"
    record.parent.mkdir(parents=True)
    record.write_text('{"job": "7", "runs": ["x"]}\n{"job": "8", "ru')
    code, _, err = runs.train(*DETACH)
    assert code == 2 and len(err.splitlines()) == 1 and slurm.scripts() == []
    assert err.startswith(f"error: {record}: line 2 is no record of a job; `scancel` what squeue shows")


def test_what_was_submitted_before_a_refusal_is_named(runs: Runs, slurm: FakeSlurm) -> None:
    """As where a site limits how many jobs a user may have: they go on though the command ends."""
    slurm.tell("config", "MaxArraySize = 1\n")
    slurm.tell("limit", "sbatch: error: QOSMaxSubmitJobPerUserLimit\n")
    slurm.tell("lasting")
    code, _, err = runs.train(*DETACH, "seed=0,1")
    assert (code, err) == (
        2,
        "error: hydra/launcher=slurm: sbatch: error: QOSMaxSubmitJobPerUserLimit; the same command follows those "
        "submitted before it: 1\n",
    )


def test_a_machine_without_slurm_is_one_line(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    code, _, err = runs.train(*DETACH)
    assert code == 2 and "hydra/launcher=slurm: sbatch is not in PATH; run the command on a login node" in err


def test_two_drivers_at_once_submit_a_run_once(
    runs: Runs, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits a second for the other to see the same empty queue; the lock keeps them from meeting there."""
    slurm.tell("lasting")
    meeting, queue = threading.Barrier(2), slurm_commands.queue

    def queue_then_meet() -> dict[str, QueuedJob]:
        seen = queue()
        with suppress(threading.BrokenBarrierError):
            meeting.wait(timeout=1)
        return seen

    monkeypatch.setattr(slurm_commands, "queue", queue_then_meet)
    run = compose([*TINY_VIT, "system.device=cpu", f"runs_dir={runs.folder}"])
    submitted: list[list[Job]] = []
    both = [
        threading.Thread(target=lambda: submitted.append(SlurmLauncher()._jobs_of([run]))) for _ in range(2)
    ]
    for driver in both:
        driver.start()
    for driver in both:
        driver.join()
    assert [job.job_id for jobs in submitted for job in jobs] == ["1", "1"] and len(slurm.scripts()) == 1


@pytest.mark.parametrize(
    ("end", "submissions", "words"),
    [
        ("NODE_FAIL", 3, "stale: its job ended as NODE_FAIL and left no record (job 3"),
        ("", 3, "stale: its job ended as unknown and left no record (job 3"),
        ("OUT_OF_MEMORY", 1, "stale: the node's memory did not suffice; raise hydra.launcher.mem_gb (job 1"),
        ("CANCELLED", 1, "interrupted: cancelled (job 1"),
    ],
)
def test_a_job_without_record_is_judged_by_what_slurm_knows(
    end: str, submissions: int, words: str, runs: Runs, slurm: FakeSlurm
) -> None:
    if end:
        slurm.tell("end", end)
    slurm.tell("silent")  # once
    output = runs.folder / "default" / "slurm"
    output.mkdir(parents=True)
    for job in range(1, 4):
        (output / f"{job}_0_log.out").touch()
    code, out, err = runs.train(*SWEEP)
    assert code == 1 and words in err and f"{submissions}_0_log.out" in err
    assert len(slurm.scripts()) == submissions and "retry 3" not in out


def test_a_run_that_slurm_did_not_queue_again_is_submitted_until_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of its jobs ends with a checkpoint at a step boundary, and `scontrol requeue` is refused."""
    run = compose([*TINY_VIT, f"runs_dir={tmp_path}"])
    folder, jobs = RunFolder(run.folder), iter(range(1, 6))

    def submit(some: Sequence[RunConfig]) -> list[Job]:
        assert some == [run]
        folder.failure.unlink(missing_ok=True)
        number = next(jobs)
        if number == 5:
            folder.summary.write_text('{"status": "finished"}')
        else:
            folder.fail(FailureKind.interrupted, "Preempted: SIGUSR2 at step 4 of 9")
        return [Job(str(number), (run.run_id,), run.folder.parent / "slurm")]

    monkeypatch.setattr(slurm_commands, "queue", dict)
    monkeypatch.setattr(slurm_commands, "end_state", lambda job: "COMPLETED")
    driver = Driver([run], submit, max_retries=0, poll_s=0.01, view=queue_view([run]))
    driver.follow(submit([run]))
    assert driver.outcomes[run.folder].state is State.finished


def test_equal_runs_of_two_names_have_a_job_and_an_outcome_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed, done = runs = [compose([f"name={name}", f"runs_dir={tmp_path}"]) for name in ("a", "b")]
    jobs = [Job(str(n), (run.run_id,), run.folder.parent / "slurm") for n, run in enumerate(runs)]
    RunFolder(failed.folder).fail(FailureKind.code, "it broke")
    done.folder.mkdir(parents=True)
    RunFolder(done.folder).summary.write_text('{"status": "finished"}')
    monkeypatch.setattr(slurm_commands, "queue", dict)
    driver = Driver(runs, lambda some: [], max_retries=0, poll_s=0.01, view=queue_view(runs))
    driver.follow(jobs)
    assert [driver.outcomes[run.folder].state for run in runs] == [State.failed, State.finished]
    said = capsys.readouterr().out
    assert re.search(rf"a/{failed.run_id} failed \(job 0; [12] of 2 in .* s\): it broke\n", said)
    assert re.search(rf"b/{done.run_id} finished \(job 1; [12] of 2 in .* s\)\n", said)


def test_runs_of_two_folders_are_submitted_and_planned_in_each(
    tmp_path: Path, slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    both = Runs(Path(f"{tmp_path}/one,{tmp_path}/two"), capsys)  # which is a sweep over runs_dir
    code, out, err = both.train(*DETACH, "seed=0,1,1")
    assert code == 0 and "6 combinations are 4 different runs" in out, err
    assert "4 runs submitted" in out
    for place in ("one", "two"):
        experiment = tmp_path / place / "default"
        plan = [entry["run_id"] for entry in json.loads((experiment / "plan.json").read_text())]
        record = (experiment / "slurm" / "submissions.jsonl").read_text().splitlines()
        assert sorted(run for line in record for run in json.loads(line)["runs"]) == sorted(plan)
        assert len(plan) == 2


def test_a_job_that_could_not_write_its_output_names_the_folder(runs: Runs, slurm: FakeSlurm) -> None:
    code, _, err = runs.train(*SWEEP, "hydra.launcher.max_retries=0")
    assert (
        code == 1
        and f"left nothing in {runs.folder / 'default' / 'slurm'}; runs_dir must be on a file" in err
    )


def test_starts_without_a_new_checkpoint_come_to_an_end(tmp_path: Path) -> None:
    run = compose([*TINY_VIT, f"runs_dir={tmp_path}"])
    folder = RunFolder(run.folder)
    resume = folder.checkpoints / "resume"
    resume.mkdir(parents=True)
    job, starts = SlurmJob([run.to_dict()], 1, 30), tmp_path / "starts.jsonl"
    for start in range(7):
        if start < 3:  # each of the first starts gets on
            (resume / f"step-{start:08d}.json").touch()
        if start < 6:
            job._check_progress(starts, [run])
    with pytest.raises(SystemExit, match="1"):
        job._check_progress(starts, [run])
    failure = json.loads(folder.failure.read_text())
    assert failure["kind"] == "code" and "raise hydra.launcher.time_min=30" in failure["error"]


def test_a_run_that_cannot_be_built_says_so_on_record(tmp_path: Path) -> None:
    run = compose([*TINY_VIT, f"runs_dir={tmp_path}", "train.batch_size=5000", "tracking=off"])
    assert slurm_job._execute(run) == 2
    failure = json.loads((run.folder / "failure.json").read_text())
    assert "train.batch_size: 5000 exceeds" in failure["error"] and failure["kind"] == "code"


def test_the_table_shows_who_runs_and_why_others_wait(tmp_path: Path) -> None:
    runs = [compose([f"seed={seed}", f"runs_dir={tmp_path}"]) for seed in range(3)]
    waited_for = {
        run.folder: (run, Job(f"7_{run.seed}", (run.run_id,), run.folder.parent / "slurm")) for run in runs
    }
    view = queue_view(runs)
    view._console = Console(force_terminal=True, width=120, record=True)
    view.show(waited_for, {"7_0": QueuedJob("RUNNING", "None"), "7_1": QueuedJob("PENDING", "Priority")})
    view._console.print(view._live.renderable)
    text = view._console.export_text()
    assert "0 of 3 runs ended; 1 pending (Priority), 1 ending" in text
    assert re.search(r"baseline-s0-\w+\s+7_0\s+running\s+starting", text) and "7_1" not in text


def test_the_parent_of_packed_runs_outlives_the_signal_to_all_of_a_job() -> None:
    """SLURM sends SIGUSR2 to every process; without its parent no worker could start or be waited for."""
    code = (
        "import os, signal, time\n"
        "from multiprocessing import forkserver\n"
        "from hydra_plugins.pmexp_launchers import processes\n"
        "processes._PRELOAD.clear()\n"
        "processes.preload()\n"
        "parent = forkserver._forkserver._forkserver_pid\n"
        "os.kill(parent, signal.SIGUSR2)\n"
        "time.sleep(0.2)\n"
        "assert os.waitpid(parent, os.WNOHANG) == (0, 0)\n"
        "assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
