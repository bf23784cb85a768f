"""The command line: help without torch, and one line with exit code 2 for whatever is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from small_runs import TINY_BERT, TINY_VIT, Runs

OFFLINE = pytest.mark.usefixtures("_no_network")


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a compute node without network sees, on any machine."""
    import datasets.config
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


def test_help_lists_the_groups_and_imports_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['train', '--help']; from pmexp import train; code = train.main();"
        "assert not {'torch', 'transformers', 'mlflow', 'datasets'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for group in (
        "model: ",
        "dataset: digit-captions, digits, ",
        "variant: 2bit, 4bit",
        "system: bf16",
        "tracking: ",
    ):
        assert group in done.stdout


@OFFLINE
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian.lr=3"], "did you mean train.lr?"),
        (
            ["-m", "hydra/launcher=slurm", "hydra.launcher.partitoin=x"],
            "did you mean hydra.launcher.partition?",
        ),
        (["hydra/launcher=slurm"], "hydra/launcher=slurm: launchers execute sweeps; add -m"),
        (["train.nonsense=3"], "train.nonsense is not a key; did you mean train."),
        (["variant=foo"], "variant=foo: is not an option; allowed are 2bit, 4bit"),
        (
            ["variant=pm-dorp"],
            "variant=pm-dorp: is not an option; did you mean pm-drop? allowed are 2bit, 4bit",
        ),
        (["variant.rng=foo"], "variant.rng=foo: 'foo' is unknown; allowed are philox, torch"),
        (
            ["train.schedule=linaer"],
            "train.schedule=linaer: 'linaer' is unknown; did you mean linear? allowed",
        ),
        (
            ["system.parts=[flsh]"],
            "system.parts=[flsh]: 'flsh' is unknown; did you mean flash? allowed are ddp,",
        ),
        (["train.lr=abc"], "train.lr=abc: 'abc' is no number; write one, such as 0.5"),
        (["seed=1.5"], "seed=1.5: '1.5' is no whole number; write one, such as 3"),
        (["seed="], "seed=: has no value; write seed=VALUE or leave it out"),
        (["train.max_steps=[1,2]"], "train.max_steps=[1,2]: train.max_steps takes one whole number"),
        (["measure.profile=maybe"], "measure.profile=maybe: 'maybe' is no switch; write true or false"),
        (["train.lr=nan"], "train.lr: nan must be a positive number"),
        (["train={lr:nan}"], "train.lr: nan must be a positive number"),
        (["foo"], "foo: is no override; write key=value"),
        ([""], "'': is an empty argument; leave it out"),
        (["-m", " "], "' ': is an empty argument; leave it out"),
        (["seed=-1"], "seed: -1 must lie in"),
        (["system.device=cuda"], "system.device: cuda is not available"),
        (["+model.architecture.hiden=3"], "model.architecture.hiden: is not a field of ViTConfig"),
        (["model.architecture.image_size=9"], "takes images of (channels, height, width) (1, 9, 9)"),
        (["train.batch_size=5000"], "train.batch_size: 5000 exceeds the 1293 training samples"),
        (["dataset.metrics=[f1]"], "f1 is for two classes"),
        (
            ["model=tinybert", "dataset=reuters-r8", "dataset.path=/nope"],
            "/nope/reuters-r8-train.tab cannot be read",
        ),
        (["model=tinybert", "dataset=mrpc", "dataset.path=/nope"], "dataset.path: /nope is not a folder"),
        (["model=tinybert", "dataset=mrpc"], "or set dataset.path to a folder"),
        (
            ["model=tinybert", "model.path=/nope", "dataset=reuters-r8"],
            "model.path: /nope has no config.json",
        ),
        (["model=tinybert", "dataset=reuters-r8"], "set model.path=<folder>, or train from random weights"),
        ([*TINY_BERT, "dataset.max_length=600"], "dataset.max_length: 600 exceeds the 512 positions"),
        (["hydra.launcher.n_jobs=0", "-m"], "hydra.launcher.n_jobs: 0"),
        (["-m", "seed=0,-1"], "seed: -1"),
        (["-m", "variant=pm-drop,foo"], "variant=foo: is not an option"),
        (["-m", *TINY_BERT, "dataset=mrpc", "dataset.path=/nope", "seed=1,2"], "/nope is not a folder"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_leaves_nothing(arguments: list[str], message: str, runs: Runs) -> None:
    code, _, err = runs.train(*arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1 and err.startswith("error: ")
    assert not list(runs.folder.rglob("*.*"))


@pytest.mark.slow
def test_a_refused_run_of_a_sweep_leaves_nothing_either(runs: Runs) -> None:
    code, _, err = runs.train("-m", "model.architecture.image_size=9", "seed=1,2")
    assert code == 2
    assert err.count("\n") == 1 and "(2 of 2 runs)" in err
    assert runs.run_folders() == []
    assert (runs.folder / "default" / "plan.json").read_text().strip() == "[]"


def test_multirun_may_stand_between_overrides(runs: Runs) -> None:
    assert runs.train("seed=-2", "-m", "variant=baseline,pm-drop")[2].startswith("error: seed: -2")


def test_a_model_without_dropout_is_refused_for_a_variant(runs: Runs) -> None:
    """A rate of 0 is a rate: ViT has dropout modules all the same, and the record shows 0 mask bytes."""
    code, _, _ = runs.train(*TINY_VIT, "variant=pm-drop", "variant.p=0", "train.max_steps=1", "tracking=off")
    assert code == 0
    assert runs.summaries()["pm-drop-s0"]["metrics"]["memory/mask_bytes"] == 0


def test_a_command_ends_without_a_last_look_for_garbage() -> None:
    """It took a second where torch and transformers are loaded."""
    code = (
        "import gc; from pmexp.command_line import exit_code; gc.disable()\n"
        "class Garbage:\n"
        "    def __init__(self): self.itself = self\n"
        "    def __del__(self): print('was looked for')\n"
        "exit_code(lambda: print('done', str(Garbage())[:0]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "done \n"), done.stderr
