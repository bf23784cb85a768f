"""The wheel in an empty environment, beside a package of somebody's own: it trains, sweeps and is tracked."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pmexp.tracking.wandb_files import read_wandb

ROOT = Path(__file__).parents[2]
THEIRS = ROOT / "tests" / "shared" / "own_package"
IN_TREE = ("src", "launchers", "analysis", "conf", "examples")
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")


class Environment:
    """An environment that has what pmexp needs, and not pmexp: its packages are those of this one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run(sys.executable, "-m", "venv", "--without-pip", folder)
        self.packages = (
            folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
        )
        (self.packages / "needs.pth").write_text(sysconfig.get_path("purelib"))

    def install(self, *wheels: Path) -> None:
        pip = (sys.executable, "-m", "pip", "-q", "--python", self.folder)
        self.run(*pip, "install", "--no-deps", "--no-compile", *wheels)

    def run(self, *command: object, cwd: Path | None = None) -> str:
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [str(word) for word in command], cwd=cwd, env=clean, text=True, capture_output=True, timeout=500
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pmexp(self, *arguments: str, cwd: Path) -> str:
        return self.run(self.folder / "bin" / "pmexp", *arguments, cwd=cwd)


def wheels_of(trees: Sequence[Path], folder: Path) -> list[Path]:
    build = ("-m", "pip", "-q", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, *trees)
    subprocess.run([sys.executable, *map(str, build)], check=True, timeout=500)
    wheels = list(folder.glob("*.whl"))
    assert len(wheels) == len(trees)
    return wheels


def copied(folder: Path, names: Sequence[str]) -> Path:
    """The parts of the source tree that a wheel is made of, where building leaves nothing in the tree itself."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")
    for name in names:
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("installed")
    environment = Environment(folder / "environment")
    shutil.copytree(THEIRS, folder / "their_tree", ignore=shutil.ignore_patterns("__pycache__"))
    trees = [copied(folder / "tree", IN_TREE), folder / "their_tree"]
    environment.install(*wheels_of(trees, folder / "wheels"))
    return environment


@pytest.mark.slow
def test_somebodys_package_is_swept_on_two_processes_and_tracked(
    environment: Environment, tmp_path: Path
) -> None:
    said = environment.run(
        environment.folder / "bin" / "python", "-c", "import pmexp; print(pmexp.__file__)", cwd=tmp_path
    )
    assert said.startswith(str(environment.packages))
    environment.pmexp(
        "sweep", "variant=their-drop,their-method", "dataset.loader=their_methods.load_stripes",
        "dataset.name=stripes", "dataset.metrics=[their_methods.recall_of_stripes,accuracy]", "model=own",
        "model.builder=their_methods.build", "model.options.width=16", "system.parts=[ddp]",
        "system.processes=2", "train.threads=1", "train.epochs=2", "train.batch_size=16", "name=theirs",
        "tracking=[mlflow,wandb]", cwd=tmp_path,
    )  # fmt: skip
    summaries = [json.loads(file.read_text()) for file in tmp_path.glob("runs/theirs/*/summary.json")]
    assert sorted(each["labels"]["variant"] for each in summaries) == ["their-drop", "their-method"]
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("theirs")
    tracked = {run.data.tags.get("run_id"): run for run in client.search_runs([experiment.experiment_id])}
    for summary in summaries:
        code = {key: text for key, text in summary["settings"].items() if key.startswith("code.")}
        assert len(code) == 4 and all(text.startswith("their-methods 1.4, sha256 ") for text in code.values())
        score = summary["metrics"]["test/their_methods.recall_of_stripes"]
        run = tracked[summary["run_id"]]
        assert run.info.status == "FINISHED"
        assert run.data.metrics["final/test/their_methods.recall_of_stripes"] == score
        assert run.data.params["code.their_methods.build"] == code["code.their_methods.build"]
        (file,) = tmp_path.glob(f"runs/theirs/wandb/offline-run-*-{summary['run_id']}/*.wandb")
        content = read_wandb(file, "final/")
        assert content.exit_code == 0 and score in content.summary.values()
