"""Everything that needs a cluster, at once: sweeps whose jobs are held in mid-training and then disturbed.

A job costs seconds of imports, so one sweep serves most scenarios. `hold.py` halts a run at a step boundary until
a signal arrives: what happens to it there does not depend on how fast the machine is.
"""

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from cluster import cluster
from filelock import FileLock

from forked_python import ForkedPython
from hydra_plugins.pmexp_launchers import processes as workers
from pmexp.tracking.database import silence_mlflow
from small_runs import TINY_VIT

# They are the seeds of the sweep, and indices in its array.
ALONE, KILLED, REQUEUED, CANCELLED, TIMED_OUT = SEEDS = range(5)
_RUN = [
    *TINY_VIT,
    "system.device=cpu",
    "train.batch_size=64",
    "train.max_steps=44",  # an epoch is 20: the one that is cut is not timed
    "train.log_every=1",
    "checkpoint.every_s=0",
    "tracking=off",
]
_SIGNAL_SECONDS = 20  # before the end of a job's time
_SLURM = [
    "hydra/launcher=slurm",
    "hydra.launcher.mem_gb=0.5",
    "hydra.launcher.cpus_per_task=1",
    f"hydra.launcher.signal_before_end_s={_SIGNAL_SECONDS}",
    "hydra.launcher.poll_s=0.5",
]
_DEADLINE_SECONDS = 400.0
_HOLD = Path(__file__).with_name("hold.py")


def executed(root: Path) -> "Drill":
    """The drill below `root`, by whoever comes first; the others wait for it, and raise where it failed."""
    drill, failed = Drill(root / "slurm"), root / "slurm.failed"
    with FileLock(root / "slurm.lock"):
        if not drill.root.exists():
            try:
                drill.execute()
            except BaseException:
                failed.write_text(traceback.format_exc())
                raise
    if failed.is_file():
        raise RuntimeError(f"the drill failed:\n{failed.read_text()}")
    return drill


class Drill:
    """What the scenarios leave in a folder: runs/, and of each driver its exit code and what it printed."""

    def __init__(self, root: Path) -> None:
        self.root, self.runs, self._holds = root, root / "runs", root / "holds"
        self._drivers: dict[str, ForkedPython] = {}

    def folder(self, name: str, seed: int = 0) -> Path:
        (folder,) = [file.parent for file in (self.runs / name).glob(f"*-s{seed}-*/config.yaml")]
        return folder

    def jobs(self, name: str, seed: int = 0) -> list[str]:
        """The ids of the jobs that had the run, in order."""
        lines = (self.runs / name / "slurm" / "submissions.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        return [each["job"] for each in records if any(f"-s{seed}-" in run for run in each["runs"])]

    def starts(self, name: str, seed: int = 0) -> list[int]:
        """How often each of the run's jobs has been started."""
        folder = self.runs / name / "slurm"
        return [
            len((folder / f"{job}_starts.jsonl").read_text().splitlines()) for job in self.jobs(name, seed)
        ]

    def output(self, driver: str) -> str:
        return (self.root / f"{driver}.out").read_text()

    def code(self, driver: str) -> int:
        return int((self.root / f"{driver}.code").read_text())

    def execute(self) -> None:
        silence_mlflow()
        for module in workers._PRELOAD:  # the drivers are forks of this process
            importlib.import_module(module)
        for folder in (self._holds, self.root / "hooks"):
            folder.mkdir(parents=True)
        shutil.copy(_HOLD, self.root / "hooks" / "sitecustomize.py")
        with cluster(self.root / "cluster") as environment:
            self._environment = environment | {
                "PYTHONPATH": os.pathsep.join([str(self.root / "hooks"), *filter(None, sys.path)]),
                "PMEXP_TEST_HOLDS": str(self._holds),
                "OMP_NUM_THREADS": "1",
            }
            try:
                self._scenarios()
            finally:
                for driver in self._drivers.values():
                    driver.kill()
                    driver.wait()

    def _scenarios(self) -> None:
        for seed in SEEDS[1:]:
            self._hold(f"pmexp-sweep-{seed}-0")
        self._hold("pmexp-two_nodes-0")
        self._hold("baseline-s0")  # one of the packed runs, which are processes of their own
        sweep = ["name=sweep", f"seed={','.join(map(str, SEEDS))}", *_SLURM]
        zero2 = ["system=zero2", "system.processes=2", *_SLURM]
        self._start("submitter", *sweep, "hydra.launcher.detach=true")
        self._start(
            "two_nodes", "name=two_nodes", *zero2, "hydra.launcher.nodes=2", "hydra.launcher.partition=spot"
        )
        self._start("one_node", "name=one_node", *zero2)
        self._start(
            "packed",
            "name=packed",
            "seed=0,1,2",
            *_SLURM,
            "hydra.launcher.runs_per_job=3",
            "hydra.launcher.n_jobs=2",
        )
        compared = ",".join(str(seed) for seed in SEEDS if seed != CANCELLED)
        self._start("local", "name=local", f"seed={compared}", "hydra.launcher.n_jobs=2")
        self._end("submitter")
        self._start("interrupted", *sweep)
        self._await("the second driver", lambda: "have a job" in self.output("interrupted"))
        self._drivers["interrupted"].send_signal(signal.SIGINT)
        self._end("interrupted")
        self._start("driver", *sweep)
        self._await("the third driver", lambda: "have a job" in self.output("driver"))
        self._disturb()
        for name in ("driver", "two_nodes", "one_node", "packed", "local"):
            self._end(name)

    def _disturb(self) -> None:
        """Disturbs each held run in its own way, first the one that takes longest to come back."""
        self._held("pmexp-two_nodes-0")
        self._slurm(
            "sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"
        )
        self._held(f"pmexp-sweep-{TIMED_OUT}-0")
        timed_out = self.jobs("sweep", TIMED_OUT)[0]
        self._end_soon(timed_out)
        os.kill(self._held(f"pmexp-sweep-{KILLED}-0"), signal.SIGKILL)
        self._held(f"pmexp-sweep-{REQUEUED}-0")
        self._slurm("scontrol", "requeue", self.jobs("sweep", REQUEUED)[0])
        self._held(f"pmexp-sweep-{CANCELLED}-0")
        self._slurm("scancel", self.jobs("sweep", CANCELLED)[0])
        self._held("baseline-s0")
        self._slurm("scancel", "--signal=USR2", self.jobs("packed")[0])
        self._await("the end of the first time slice", lambda: self._field(timed_out, "Restarts") == "1")
        self._slurm("scontrol", "update", f"JobId={timed_out}", "TimeLimit=60")

    def _end_soon(self, job: str) -> None:
        """Leaves the job so much time that the controller, which looks every 30 s, can still signal it."""
        minutes, seconds = map(int, self._field(job, "RunTime").split(":")[1:])
        limit = minutes + 1 + (seconds > 60 - _SIGNAL_SECONDS)
        self._slurm("scontrol", "update", f"JobId={job}", f"TimeLimit={limit}")

    def _field(self, job: str, name: str) -> str:
        field = re.search(rf"\b{name}=(\S+)", self._slurm("scontrol", "--oneliner", "show", "job", job))
        assert field
        return field[1]

    def _hold(self, name: str) -> None:
        (self._holds / name).touch()

    def _held(self, name: str) -> int:
        """The process of the run, when it has come to its hold."""
        file = self._holds / f"{name}.held"
        self._await(f"{name} at its hold", file.is_file)
        return int(file.read_text())

    def _start(self, name: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "pmexp.train", "-m", *_RUN, *arguments, f"runs_dir={self.runs}"]
        with (self.root / f"{name}.out").open("wb") as output:
            self._drivers[name] = ForkedPython(command, env=self._environment, stdout=output, stderr=output)

    def _end(self, name: str) -> None:
        self._await(f"the driver {name!r}", lambda: self._drivers[name].poll() is not None)
        (self.root / f"{name}.code").write_text(str(self._drivers[name].returncode))

    def _slurm(self, *command: str) -> str:
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def _await(self, what: str, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while not is_so():
            assert time.monotonic() < deadline, f"{what}: not in {_DEADLINE_SECONDS:.0f} s; {self._state()}"
            time.sleep(0.1)

    def _state(self) -> str:
        said = "".join(f"--- {name}\n{self.output(name)}\n" for name in self._drivers)
        return f"{self._slurm('squeue')}\n{said}"


if __name__ == "__main__":  # in the background of other tests
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the cluster ends with it
    executed(Path(sys.argv[1]))
