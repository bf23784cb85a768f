"""What every test gets: no telemetry, no wall-clock bound on properties, and a folder of runs."""

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from time import perf_counter

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a fork has no use for a team of threads that it lacks
# Threads that wait for one another sleep: they would spin for a core that another of pytest's workers has.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Otherwise inductor starts processes that compile, and one that tries each instruction set of the CPU first.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")

import hypothesis
import pytest
from filelock import FileLock

from pmexp import datasets
from pmexp.config import DatasetConfig, DatasetKind
from pmexp.tracking.database import create_database, silence_mlflow
from small_runs import Runs

silence_mlflow()
hypothesis.settings.register_profile(
    "pmexp", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("pmexp")
gc.disable()  # until all is imported: it would look at the same lasting objects again and again
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Every second worker imports the files from the last on: what one has compiled, the others only read."""
    report = yield
    if isinstance(collector, pytest.Directory) and int(_WORKER.removeprefix("gw") or 0) % 2:
        report.result.reverse()
    return report


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow files come first, in turn to each half of the items, with which two workers begin: the last test is
    else a long one that other cores wait for. SLURM's are last: their drill runs in the background."""
    if _WORKER:
        items.sort(key=lambda item: item.path)  # pytest refuses workers of different orders
    late = [item for item in items if item.get_closest_marker("slurm")]
    files = dict.fromkeys(item.path for item in items if item.get_closest_marker("slow"))
    slow_files = [file for file in files if file not in {item.path for item in late}]
    first, second = (
        [item for item in items if item.path in half] for half in ({*slow_files[0::2]}, {*slow_files[1::2]})
    )
    others = {*items} - {*first, *second, *late}
    quick = [item for item in items if item in others]
    middle = max(0, len(items) // 2 - len(first))
    items[:] = [*first, *quick[:middle], *second, *quick[middle:], *late]


def pytest_collection_finish() -> None:
    """What is imported stays, its garbage too: no collection of garbage looks at it again."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # at 700 new objects it took a tenth of the tests' time
    gc.callbacks.append(_look_for_slow_collections)
    gc.enable()
    if "torch" in sys.modules:
        from absent_devices import take_no_seeds
        from forked_python import begin_autograd

        begin_autograd()
        take_no_seeds()
    if sys.modules.keys() >= {"pmexp.training.run", "mlflow"}:
        from forked_python import fork_parent_of_workers

        fork_parent_of_workers()


_SLOW_COLLECTION_S = 0.2
_collections = {"began": 0.0, "slowest": 0.0}


def _look_for_slow_collections(phase: str, _: dict[str, int]) -> None:
    now = perf_counter()
    if phase == "start":
        _collections["began"] = now
    else:
        _collections["slowest"] = max(_collections["slowest"], now - _collections["began"])


def pytest_runtest_logfinish() -> None:
    """Freezes what tests have loaded since, compilers above all, where a collection took long: each later one
    would look through it again."""
    if _collections["slowest"] > _SLOW_COLLECTION_S:
        gc.freeze()
        _collections["slowest"] = 0.0


@pytest.fixture(scope="session")
def shared_tmp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that all of pytest's workers share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session", autouse=True)
def _slurm_in_the_background(request: pytest.FixtureRequest, shared_tmp: Path) -> Iterator[None]:
    """Begins the drill of tests/slurm with the first test: it mostly waits, and the others need not."""
    wanted = any(item.get_closest_marker("slurm") for item in request.session.items)
    if not wanted or os.environ.get("PYTEST_XDIST_WORKER", "gw0") != "gw0" or not shutil.which("sbatch"):
        yield
        return
    from forked_python import ForkedPython

    with ForkedPython(
        [sys.executable, "-m", "cluster_drill", str(shared_tmp)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # what fails is written down for the tests
    ) as drill:
        yield
        drill.terminate()  # it has ended, unless the tests were broken off


@pytest.fixture
def runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Runs:
    return Runs(tmp_path / "runs", capsys)


@pytest.fixture(scope="session")
def empty_database(shared_tmp: Path) -> Path:
    """An MLflow database without runs, one for all of pytest's workers: making one takes seconds."""
    file = shared_tmp / "mlflow" / "a%20b?c#d" / "mlflow.db"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(shared_tmp / "mlflow.lock"):
        create_database(file)
    assert list(file.parent.parent.rglob("*")) == [file.parent, file]
    return file


@pytest.fixture
def database(empty_database: Path) -> Callable[[Path], Path]:
    """Puts an empty mlflow.db into a folder of runs and returns its path."""

    def put(folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        return Path(shutil.copy(empty_database, folder))

    return put


@pytest.fixture(scope="session")
def few_news(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`dataset.path` of a folder with each tenth document of Reuters-R8: all would take seconds a run to encode."""
    config = DatasetConfig(name="reuters-r8", kind=DatasetKind.reuters_r8, text_columns=["text"])
    folder = tmp_path_factory.mktemp("few-news")
    for file in Path(datasets.load(config).origin).glob("*.tab"):
        head, documents = (lines := file.read_text().splitlines(keepends=True))[:4], lines[4::10]
        (folder / file.name).write_text("".join([*head, *documents]))
    return f"dataset.path={folder}"
