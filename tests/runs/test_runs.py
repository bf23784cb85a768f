"""`python -m pmexp.runs`: the states of run folders, filters, watching, and running again."""

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from composed import DEFAULT, config
from hydra_plugins.pmexp_launchers import local  # Hydra makes the class in it anew
from pmexp.config import RunConfig
from pmexp.errors import SweepFailed
from pmexp.run_folder import found
from pmexp.run_folder.differences import said
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.journal import Journal, digest_of
from pmexp.run_folder.plan import add_to_plan
from pmexp.runs import watch
from pmexp.runs.choice import is_same
from pmexp.runs.command import main
from small_runs import TINY_VIT

HERE = socket.gethostname()
HEADINGS = ["step", "loss", "host", "time", "attempt", "waited", "error"]
STATES = ["pending", "running", "finished", "oom", "failed", "interrupted", "stale"]


@dataclass
class Demo:
    """An experiment with a run in each state."""

    runs_dir: Path
    capture: pytest.CaptureFixture[str]

    @property
    def folder(self) -> Path:
        return self.runs_dir / "demo"

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """The command: (exit code, stdout, stderr)."""
        self.capture.readouterr()
        code = main([*arguments, "--runs-dir", str(self.runs_dir)])
        out, err = self.capture.readouterr()
        return code, out, err

    def objects(self, *arguments: str) -> dict[str, Any]:
        """Returns the objects that --json prints, by run id."""
        code, out, _ = self("demo", "--json", *arguments)
        assert code == 0
        return {run["run_id"]: run for run in json.loads(out)}

    def run(
        self,
        run_id: str,
        host: str = HERE,
        started_s_ago: float = 100.0,
        steps: int = 5,
        **files: dict[str, Any],
    ) -> RunFolder:
        """A run folder with a journal of `steps` steps and `files`, by their stem."""
        folder = RunFolder(self.folder / run_id)
        folder.path.mkdir(parents=True)
        owner = {"host": host, "pid": 1, "started": time.time() - started_s_ago, "attempt": 2}
        for stem, content in {"owner": owner, **files}.items():
            (folder.path / f"{stem}.json").write_text(json.dumps(content))
        with Journal(folder.journal) as journal:
            journal.write(0, {"progress/steps_total": 40})
            for step in range(1, steps + 1):
                journal.write(step, {"train/loss": 1 / step, "grad/norm": 1.0})
        return folder

    def configured(self, *overrides: str, **files: dict[str, Any]) -> RunConfig:
        """A run folder as a run of the configuration leaves it."""
        run = config(f"runs_dir={self.runs_dir}", "name=demo", *overrides)
        folder = self.run(run.run_id, **files)
        (folder.path / "config.yaml").write_text(yaml.safe_dump(run.to_dict(), sort_keys=False))
        return run

    def plan(self, **variants: str) -> None:
        labels = {label: value for label, value in DEFAULT.labels.items() if label != "variant"}
        entries = [
            {"run_id": run_id, **labels, "variant": variant, "settings": DEFAULT.settings}
            for run_id, variant in variants.items()
        ]
        (self.folder / "plan.json").write_text(json.dumps(entries))


def failure(status: str, error: str) -> dict[str, Any]:
    return {"status": status, "kind": "code", "error": error, "log": "log.txt"}


def summary(status: str = "finished", **more: Any) -> dict[str, Any]:
    return {"status": status, "labels": DEFAULT.labels, "metrics": {}, **more}


@pytest.fixture
def demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Demo]:
    demo = Demo(tmp_path / "runs", capsys)
    with ExitStack() as claims:
        claims.enter_context(demo.run("running").claimed())
        demo.run("finished", steps=40, summary=summary())
        demo.run("oom", steps=0, summary=summary("oom", error="OutOfMemoryError: no room"))
        demo.run("failed", failure=failure("failed", "ValueError: \x1b[31mno"))
        demo.run("interrupted", failure=failure("interrupted", "SIGTERM at step 5"))
        demo.run("stale")
        demo.plan(**{state: "pm-drop" if state in ("failed", "stale") else "baseline" for state in STATES})
        yield demo


def test_every_state_is_told(demo: Demo) -> None:
    listed = demo.objects()
    assert list(listed) == STATES  # in the plan's order
    assert [run["state"] for run in listed.values()] == STATES
    running = listed["running"]
    assert (running["step"], running["steps_total"], running["loss"]) == (5, 40, 0.2)
    assert (running["host"], running["attempt"], running["seed"]) == (HERE, 2, 0)
    assert running["seconds"] == pytest.approx(100, abs=30) and running["folder"].endswith("demo/running")
    assert listed["pending"]["step"] == 0 and listed["pending"]["seconds"] is None
    assert listed["oom"]["error"] == "OutOfMemoryError: no room" and listed["oom"]["loss"] is None
    assert listed["finished"]["error"] is None and listed["finished"]["loss"] == 1 / 40


def test_a_table_has_a_line_for_each_run(demo: Demo) -> None:
    code, out, _ = demo("demo")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["run", "state", *HEADINGS]
    (failed,) = [line for line in lines if line.startswith("failed")]
    assert failed.split()[1:4] == ["failed", "5/40", "0.2000"] and failed.endswith("ValueError: \\x1b[31mno")
    assert "demo: 7 runs: 1 pending, 1 running, 1 finished, 1 oom, 1 failed, 1 interrupted, 1 stale" in lines
    assert lines[-1].endswith(f"python -m pmexp.runs retry demo runs_dir={demo.runs_dir}")


def test_experiments_are_counted(demo: Demo) -> None:
    (demo.runs_dir / "mlartifacts").mkdir()
    code, out, _ = demo()
    assert code == 0 and out.splitlines()[0].split() == ["experiment", "runs", *STATES]
    assert [line.split() for line in out.splitlines()[1:]] == [["demo", "7", *["1"] * 7]]
    assert json.loads(demo("--json")[1]) == [{"name": "demo", "runs": 7, **dict.fromkeys(STATES, 1)}]


@pytest.mark.parametrize(
    ("beat_s_ago", "state"), [(5, "running"), (100, "running"), (200, "stale")], ids=["fresh", "late", "old"]
)
def test_a_run_of_another_host_lives_by_its_heartbeat(demo: Demo, beat_s_ago: float, state: str) -> None:
    folder = demo.run("elsewhere", host="another", started_s_ago=5000.0)
    folder.heartbeat.touch()
    os.utime(folder.heartbeat, (0, time.time() - beat_s_ago))
    (folder.path / "config.yaml").write_text(yaml.safe_dump(DEFAULT.to_dict()))
    run = demo.objects()["elsewhere"]
    assert (run["state"], run["host"]) == (state, "another")
    assert run["task"] == DEFAULT.labels["task"] and run["variant"] == "baseline"
    assert run["seconds"] == pytest.approx(5000 if state == "running" else 5000 - beat_s_ago, abs=30)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--state", "failed,oom"], ["oom", "failed"]),
        (["variant=pm-drop"], ["failed", "stale"]),
        (["variant=pm-drop,baseline", "seed=0", "--state", "stale,pending"], ["pending", "stale"]),
        (["--state", "stale", "variant=baseline"], []),
        (["--state=finished", f"task={DEFAULT.labels['task']}", "system=plain"], ["finished"]),
    ],
)
def test_filters(demo: Demo, arguments: list[str], expected: list[str]) -> None:
    assert list(demo.objects(*arguments)) == expected


def test_an_experiment_may_be_typed_as_its_folder(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    named = demo("demo")
    monkeypatch.chdir(demo.runs_dir.parent)
    for typed in ("demo/", f"{demo.folder}/", f"{demo.runs_dir.name}/demo", f"./{demo.runs_dir.name}/demo/"):
        assert demo(typed) == named and named[0] == 0


@pytest.fixture
def swept_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Demo:
    """Two learning rates by two rates of dropout by two seeds: finished, planned, and the last one typed alone."""
    demo = Demo(tmp_path / "runs", capsys)
    *planned, alone = [
        config(f"runs_dir={demo.runs_dir}", "name=demo", f"train.lr={lr}", f"variant.p={p}", f"seed={seed}")
        for lr, p, seed in itertools.product(("0.001", "2e-5"), ("0.1", "0.3"), (0, 1))
    ]
    add_to_plan(demo.folder, [(run.run_id, run.labels, run.settings) for run in planned])
    metrics = {"speed/data_wait_share": 0.0314}
    run = planned[0]
    demo.run(run.run_id, summary=summary(labels=run.labels, settings=run.settings, metrics=metrics))
    folder = demo.run(alone.run_id)
    (folder.path / "config.yaml").write_text(yaml.safe_dump(alone.to_dict(), sort_keys=False))
    return demo


def test_what_a_sweep_varies_is_a_column_each(swept_over: Demo) -> None:
    lines = [line.split() for line in swept_over("demo")[1].splitlines()]
    assert lines[0] == ["run", "state", "variant.p", "train.lr", *HEADINGS]
    assert [line[2:4] for line in lines[1:9]] == [
        [p, lr] for lr, p in itertools.product(("0.001", "2e-05"), ("0.1", "0.3")) for _ in range(2)
    ]
    assert lines[1][-1] == "3.1%"
    told = list(swept_over.objects().values())
    assert [(run["differs"]["train.lr"], run["differs"]["variant.p"]) for run in told[::2]] == [
        (0.001, 0.1), (0.001, 0.3), (2e-5, 0.1), (2e-5, 0.3),
    ]  # fmt: skip
    assert [run["data_wait_share"] for run in told] == [0.0314, *[None] * 7]
    lines = [line.split() for line in swept_over("demo", "variant.p=0.1")[1].splitlines()]
    assert lines[0] == ["run", "state", "train.lr", *HEADINGS]


@pytest.mark.parametrize(
    ("arguments", "places"),
    [
        (["train.lr=1e-3"], [0, 1, 2, 3]),
        (["train.lr=0.0010"], [0, 1, 2, 3]),
        (["--train.lr", "0.00002"], [4, 5, 6, 7]),
        (["train.lr=1e-3,2e-5", "variant.p=.1", "seed=01"], [1, 5]),
        (["variant.p=.3,0.10", "train.max_steps=null"], [0, 1, 2, 3, 4, 5, 6, 7]),
        (["variant.p=3e-1", "train.lr=2e-5", "state=stale"], [7]),
        (["dataset.metrics=[ accuracy ]", "system.deterministic=False", "seed=0"], [0, 2, 4, 6]),
        (["variant.name=baseline", "variant=baseline", "train.epochs=1e1"], [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_any_key_filters_by_its_value(swept_over: Demo, arguments: list[str], places: list[int]) -> None:
    every = list(swept_over.objects())
    assert list(swept_over.objects(*arguments)) == [every[place] for place in places]


@given(
    st.one_of(
        st.none(), st.booleans(), st.integers(0, 2**32), st.floats(0, 1e6).map(lambda x: float(f"{x:.15g}"))
    )
)
def test_a_value_is_that_which_is_typed_as_it_is_said(value: object) -> None:
    assert is_same(value, said(value)) and is_same([value, "a"], f"[{said(value)},a]")
    assert (
        not is_same(value, "a") and not is_same([value], "[a]") and not is_same([value], said([value, value]))
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "no experiment 'nothing'"),
        (["../demo"], "no experiment '../demo'"),
        (["demo", "--state", "bad"], "state: 'bad' is unknown; allowed are pending, running"),
        (["demo", "lr=3"], "lr=3: lr is not a key; did you mean train.lr? --help lists the keys"),
        (["demo", "train.lr"], "train.lr: has no value; write train.lr=VALUE"),
        (["demo", "hydra.launcher.n_jobs=2"], "hydra.launcher.n_jobs=2: hydra.launcher.n_jobs is not a key; --help"),
        (["demo", "stat=failed"], "stat=failed: stat is not a key; did you mean state? "),
        (["demo", "--train.ler", "3"], "train.ler=3: no run has the key train.ler; did you mean train.lr? "),
        (["demo", "--stat", "failed"], "--stat: stat is not a key; did you mean state? "),
        (["demo", "train.lr=3"], "train.lr=3: no run has it; there are "),
        (["demo", "train.lr=0.001", "train.lr=3"], "train.lr=0.001 and train.lr=3 are given for the same key"),
        (["retry", "demo", "train.lr=3"], "train.lr=3: no run has it; there are "),
        (["train.lr=3"], "train.lr=3: is for the runs of one experiment; name it"),
        (["demo", "variant=foo"], "variant=foo: no run has it; there are baseline, pm-drop"),
        (["--state", "failed"], "name it"),
        (["retry", "demo", "--state", "oom"], "state: 'oom' is unknown; allowed are failed, interrupted, stale"),
        (["retry", "demo", "--state", "stale"], "demo/stale/config.yaml cannot be used"),
        (["retry", "demo", "hydra/launcher=moon"], "cannot be used"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_cannot_be_is_one_line(demo: Demo, arguments: list[str], message: str) -> None:
    code, _, err = demo(*arguments)
    assert code == 2 and err.count("\n") == 1 and err.startswith("error: ") and message in err


def test_no_folder_of_runs_is_one_line(demo: Demo) -> None:
    demo.runs_dir = demo.runs_dir / "nowhere"
    assert "nowhere is not a folder" in demo()[2]


@pytest.mark.parametrize("file", ["summary.json", "failure.json", "owner.json"])
@pytest.mark.parametrize(
    "content", ["{nonsense", "[1]", "\x00", '{"status": "x", "kind": "x", "error": "x"}']
)
def test_a_damaged_folder_does_not_hide_the_others(demo: Demo, file: str, content: str) -> None:
    folder = demo.run("damaged")
    (folder.path / file).write_text(content)
    listed = demo.objects()
    assert len(listed) == 8
    assert listed["damaged"]["state"] == "failed" and str(folder.path) in listed["damaged"]["error"]
    assert demo("demo")[0] == 0


@pytest.mark.parametrize("digest", [True, False])
def test_a_run_whose_journal_is_not_as_it_left_it_has_no_result(demo: Demo, digest: bool) -> None:
    folder = RunFolder(demo.folder / "finished")
    with folder.journal.open("rb") as stream:
        ended = asdict(digest_of(stream.read()))
    if digest:
        folder.summary.write_text(json.dumps(summary(journal=ended)))
    assert demo.objects()["finished"]["state"] == "finished"
    with folder.journal.open("a") as stream:
        stream.write("nonsense\n")
    run = demo.objects()["finished"]
    assert run["state"] == "failed" and str(folder.journal) in run["error"]
    assert (run["step"], run["loss"]) == (40, 1 / 40)


@pytest.mark.parametrize(
    "content", ["{", "[1]", '[{"run_id": "../../x"}]', '[{"run_id": ".."}]', '{"a": 1}', "[[]]"]
)
def test_a_damaged_plan_is_one_line(demo: Demo, content: str) -> None:
    (demo.folder / "plan.json").write_text(content)
    code, _, err = demo("demo")
    assert code == 2 and err.count("\n") == 1 and f"{demo.folder / 'plan.json'}" in err


def test_the_command_starts_without_torch(demo: Demo) -> None:
    code = (
        "import sys; from pmexp.runs.command import main; code = main(sys.argv[1:]);"
        "assert not {'torch', 'transformers', 'mlflow', 'pandas', 'rich'} & set(sys.modules); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "demo", "--runs-dir", str(demo.runs_dir)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "7 runs" in done.stdout, done.stderr


def test_watching_ends_when_nothing_runs_any_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = Demo(tmp_path / "runs", capsys)
    folder = demo.run("one")
    demo.run("two", failure=failure("failed", "ValueError: no"))
    claims = ExitStack()
    claims.enter_context(folder.claimed())
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        """Ends the run in the third pause, and lets time go by without waiting."""
        looks.append(seconds)
        if len(looks) == 3:
            folder.summary.write_text(json.dumps(summary()))
            claims.close()

    monkeypatch.setattr(watch, "sleep", sleep)
    monkeypatch.setattr(watch, "monotonic", lambda: sum(looks))
    code, out, _ = demo("demo", "--watch")
    assert code == 0 and "demo: 2 runs: 1 finished, 1 failed" in out
    assert looks == [2.0] * 7  # the last look at a running one was after 4 s, the end 10 s later
    (demo.folder / "two" / "failure.json").unlink()
    (demo.folder / "two" / "summary.json").write_text(json.dumps(summary()))
    looks.clear()
    assert demo("demo", "--watch")[0] == 0 and looks == []  # all are settled: no second look


def test_what_is_settled_is_read_once(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {run.run_id: run for run in found.find_runs(demo.runs_dir, "demo")}
    read: list[Path] = []
    original = found.read_run
    monkeypatch.setattr(found, "read_run", lambda path, planned: read.append(path) or original(path, planned))
    assert len(found.find_runs(demo.runs_dir, "demo", before)) == 7
    assert sorted(path.name for path in read) == ["failed", "interrupted", "pending", "running", "stale"]


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
    ended = asdict(digest_of(damaged[0].journal.read_bytes() + b"more"))
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
        raise SweepFailed("1 of 1 runs did not finish")

    monkeypatch.setattr(local.LocalLauncher, "sweep", fail)
    demo.configured(failure=failure("failed", "ValueError: no"))
    code, _, err = demo("retry", "demo", "--state", "failed", "variant=baseline")
    assert (code, err) == (1, "1 of 1 runs did not finish\n")


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
