"""Options of one's own, in YAML files in a folder of one's own, are taken as they are written or refused in one line."""

from pathlib import Path

import pytest

from pmexp import data
from pmexp.bench.options import COMMANDS as BENCH
from pmexp.bench.options import records_options, step_options
from pmexp.command.compose import compose, compose_sweep
from pmexp.command.composition import Source
from pmexp.command.flags import read
from pmexp.command.schema import conf_folder
from pmexp.fit.options import COMMAND as FIT
from pmexp.fit.options import fit_options
from pmexp.parity.options import COMMAND as PARITY
from pmexp.parity.options import parity_options
from typed_commands import OF_TEXTS, TINYBERT, Command


def test_options_of_ones_own_hide_behind_no_option_of_pmexp(tmp_path: Path, command: Command) -> None:
    """Hydra takes the first of a name: the file of one's own would be read nowhere."""
    own = tmp_path / "own" / "variant" / "pm-drop.yaml"
    own.parent.mkdir(parents=True)
    own.write_text((conf_folder() / "variant" / "pm-drop.yaml").read_text())
    folder = tmp_path / "own"
    assert command("variant=pm-drop", "--config-dir", str(folder))[0] == 0, "which says the same"
    own.write_text("name: pm-drop\ndropout: packed\np: 0.7\n")
    for flags in (["--config-dir", str(folder)], [f"hydra.searchpath=[{folder}]"]):
        code, _, err = command("variant=pm-drop", *flags)
        assert code == 2 and f"{own}: would not be read, pmexp has a variant/pm-drop.yaml" in err


OPTIONS = {
    "experiment/mine.yaml": "# @package _global_\nname: 1e3\ndataset:\n  kind: text\n  hub_id: a/b\n  revision: 12e4567\n  text_columns: [007, on, x]\n",
    "experiment/swept.yaml": "# @package _global_\nhydra:\n  sweeper:\n    params: {name: '1e3,2e3', dataset.revision: 1e3}\n",
    "dataset/mine.yaml": "name: mine\nkind: text\nhub_id: a/b\nrevision: 0x10\nmetrics: [accuracy]\n",
    "experiment/unknown.yaml": "# @package _global_\ntrain:\n  warmup_steps: 5\n",
    "experiment/hydra.yaml": "# @package _global_\nhydra:\n  job: {chdir: true}\n",
    "experiment/broken.yaml": "# @package _global_\nname: [\n",
    "experiment/twice.yaml": "# @package _global_\nname: a\nseed: 1\nname: b\n",
    "criteria/twice.yaml": "twice:\n  1: a\n  1: b\n",
    "mine.yaml": "defaults:\n  - config\n  - _self_\nname: of-mine\n",
    "no-run.yaml": "name: x\n",
}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of options of one's own, under a name that no shell likes."""
    folder = tmp_path / "my (own), opti=ons's"
    for name, text in OPTIONS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_text_of_a_yaml_file_stays_as_it_is_written(own: Path) -> None:
    source = Source(folder=own)
    run = compose(["experiment=mine", *TINYBERT], source)
    assert (run.name, run.dataset.revision, run.dataset.text_columns) == (
        "1e3",
        "12e4567",
        ["007", "on", "x"],
    )
    assert compose(["dataset=mine", *TINYBERT], source).dataset.revision == "0x10"
    runs = compose_sweep(["experiment=swept", *OF_TEXTS], source).runs
    assert [(run.name, run.dataset.revision) for run in runs] == [("1e3", "1e3"), ("2e3", "1e3")]
    assert compose([], Source("mine", own)).name == "of-mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["experiment=unknown"],
            "experiment/unknown.yaml: train.warmup_steps is not a key; did you mean train.warmup_fraction?",
        ),
        (["experiment=hydra"], "hydra.job.chdir: is set in a YAML file and not taken"),
        (["experiment=swept"], "experiment=swept: is a sweep of 2 runs"),
        (["experiment=broken"], "broken.yaml: cannot be read: while parsing"),
        (
            ["experiment=twice"],
            "experiment/twice.yaml: cannot be read: 'name' is given twice, in lines 2 and 4",
        ),
        (
            ["criteria@protocol.criteria=[twice]"],
            "criteria/twice.yaml: cannot be read: '1' is given twice, in lines 2 and 3",
        ),
        (["--config-name", "no-run"], "is no run; let the defaults of your own begin with config"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_a_run_would_not_take_of_a_yaml_file_is_refused(
    arguments: list[str], said: str, own: Path, command: Command
) -> None:
    code, _, err = command(*arguments, "--config-dir", str(own))
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1 and said in err


@pytest.mark.parametrize(
    "flags", [["-m", "--config-dir", "{own}"], ["--config-dir={own}", "--multirun"], ["-cd", "{own}", "-m"]]
)
def test_flags_stand_anywhere(flags: list[str], own: Path) -> None:
    for place in range(3):
        words = ["variant=baseline,pm-drop", "seed=0,1"]
        words[place:place] = [flag.format(own=own) for flag in flags]
        line = read(words)
        assert (line.overrides, line.sweeps) == (["variant=baseline,pm-drop", "seed=0,1"], True)
        assert (line.source, line.shows) == (Source(folder=own), [])


def test_folders_may_be_called_whatever_they_are(
    own: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(own))
    assert command("-m", "variant=baseline,pm-drop", "--config-dir", str(own))[0] == 0
    assert command("--config-dir", str(own), "experiment=mine", "--cfg", "job", "-p", "name")[1] == "1e3\n"


VARIANT = "name: mine\ndropout: packed\nbits: 4\n"


@pytest.fixture
def of_mine(tmp_path: Path) -> list[str]:
    """What makes a command find a variant, and a dataset, of one's own."""
    folder = tmp_path / "my (own), opti=ons's"
    for name, text in {
        "variant/mine": VARIANT,
        "dataset/mine": (conf_folder() / "dataset" / "digits.yaml").read_text(),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yaml").write_text(text)
    return ["--config-dir", str(folder)]


def test_every_command_that_composes_runs_finds_a_variant_of_ones_own(
    of_mine: list[str], command: Command
) -> None:
    both = parity_options(PARITY.read(["b=mine", *of_mine]))
    assert (both.a.config.variant.name, both.b.config.variant.bits) == ("baseline", 4)
    step = step_options(BENCH["step"].read(["level=step", "against=mine", *of_mine]))
    assert step.configs[1].variant.bits == 4
    records = records_options(BENCH["records"].read(["level=records", "variant=mine", *of_mine]))
    fit = fit_options(FIT.read(["variant=mine", *of_mine]))
    assert records.config.variant.bits == compose(fit.overrides).variant.bits == 4
    assert command("variant=mine", f"config_dir={of_mine[1]}")[0] == 0


def test_data_finds_a_dataset_of_ones_own(of_mine: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert data.main(["mine", *of_mine]) == 0
    assert "train: 1293 samples" in capsys.readouterr().out


def test_a_class_is_a_variant_wherever_one_is_chosen() -> None:
    path = "planted_dropouts.Failing"
    alone = compose([f"variant={path}", "variant.p=0.3"])
    assert (alone.variant.dropout, alone.run_id) == (
        path,
        compose([f"variant.dropout={path}", "variant.p=0.3"]).run_id,
    )
    runs = compose_sweep([f"variant=pm-drop,{path}", "seed=1,2"]).runs
    assert [(run.variant.name, run.seed) for run in runs] == [
        ("pm-drop", 1), ("pm-drop", 2), ("Failing", 1), ("Failing", 2)
    ]  # fmt: skip
    assert runs[3].run_id == compose([f"variant={path}", "seed=2"]).run_id


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("variant=packed", "variant=packed: is a dropout and no variant; variants with it are 2bit, 4bit, "),
        ("variant=foo", "seed-only, or a class of your own, as package.MyDropout"),
        ("variant=../model/vit-digits", "variant=../model/vit-digits: names one option; allowed are 2bit"),
        ("variant=/model/vit-digits", "variant=/model/vit-digits: names one option; allowed are 2bit"),
        ("hydra.searchpath=conf", "hydra.searchpath=conf: takes a list of folders; write hydra.searchpath=["),
        ("hydra.searchpath=[nope]", "hydra.searchpath=[nope]: nope is no folder; name one with options of"),
    ],
)
def test_what_is_no_option_or_no_folder_is_one_line(argument: str, said: str, command: Command) -> None:
    code, _, err = command(argument)
    assert code == 2 and err.startswith(f"error: {argument}: ") and err.count("\n") == 1 and said in err
