"""What was typed is what runs: the composed run against the command line, and a grammar of overrides."""

import logging
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hypothesis import given
from hypothesis import strategies as st

import pmexp
from hydra_plugins.pmexp_launchers.sweep_launcher import SweepLauncher
from override_grammar import Grammar
from pmexp import train
from pmexp.bench.command import main as bench_main
from pmexp.command.compose import compose, compose_run, compose_sweep
from pmexp.command.composition import Source
from pmexp.command.flags import read
from pmexp.command.overrides import parsed
from pmexp.command.schema import conf_folder
from pmexp.config import RunConfig, flat
from pmexp.data import main as data_main
from pmexp.errors import UserError
from pmexp.fit.command import main as fit_main
from pmexp.training import run as experiment
from small_runs import first_of

Command = Callable[..., tuple[int, str, str]]

STRINGS = 500


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`python -m pmexp.train` up to the run, in an empty folder that has to stay so: (exit code, stdout, stderr)."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def train_on(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["train", *words])
        code = train.main()
        assert not list(folder.iterdir())
        return code, *capsys.readouterr()

    return train_on


@pytest.fixture(autouse=True)
def _nothing_is_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes execution away from runs and sweeps: only what comes before is tested here."""

    def execute(run: RunConfig) -> None:
        pass

    def sweep(launcher: SweepLauncher, runs: list[RunConfig]) -> None:
        launcher.check()

    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # Hydra shows what it is asked for by a logger
    monkeypatch.setattr(logging.getLogger(), "level", logging.WARNING)
    monkeypatch.setattr(experiment, "run", execute)
    monkeypatch.setattr(SweepLauncher, "sweep", sweep)


@pytest.mark.slow
def test_any_override_gives_0_or_2_and_one_line_and_leaves_nothing(command: Command) -> None:
    grammar, codes = Grammar(seed=0), Counter[int]()
    for _ in range(STRINGS):
        words = grammar.command_line()
        code, _, err = command(*words)
        codes[code] += 1
        assert code in (0, 2), words
        assert err.count("\n") == (code == 2) and err.startswith("error: " * (code == 2)), (words, err)
    assert codes[0] > STRINGS // 20  # the grammar draws right ones, too


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["experiment=exp-1-main-perf"],
            "experiment=exp-1-main-perf: is a sweep of 60 runs; add -m, or choose variant, task and seed",
        ),
        (
            ["experiment=exp-1-main-perf", "smoke=true"],
            "experiment=smoke/exp-1-main-perf: is a sweep of 18 runs; add -m",
        ),
        (
            ["experiment=exp-1-bit-flips", "variant=baseline", "seed=0"],
            "is a sweep of 1 run; add -m, or choose task",
        ),
        (
            ["-m", "experiment=exp-1-main-perf,exp-1-ablations"],
            "these are sweeps themselves; start one at a time",
        ),
        (
            ["-m", "hydra/launcher=basic", "seed=0,1,2"],
            "is not a launcher of pmexp; allowed are local, slurm (for a debugger leave -m out",
        ),
        (["-m", "hydra/launcher=joblib", "seed=0,1,2"], "allowed are local, slurm ("),
        (
            ["-m", "hydra.launcher._target_=x.y"],
            "is not taken; of Hydra's keys allowed are hydra/launcher, hydra.launcher.<key>",
        ),
        (["hydra.launcher.n_jobs=2"], "launchers execute sweeps; add -m"),
        (["-m", "hydra/sweeper=basic", "seed=0,1"], "hydra/sweeper=basic: is not taken"),
        (["hydra.mode=MULTIRUN", "seed=0"], "hydra.mode=MULTIRUN: is not taken"),
        (["-m", "hydra.sweeper.params={seed:1}"], "is not taken"),
        (["-m", "hydra.sweep.dir=x", "seed=0,1"], "hydra.sweep.dir=x: is not taken"),
        (["hydra.job.chdir=true"], "hydra.job.chdir=true: is not taken"),
        (
            ["+train.warmup_steps=100"],
            "+train.warmup_steps=100: train.warmup_steps is not a key; did you mean train.warmup_fraction?",
        ),
        (["++train.learning_rate=1e-3"], "train.learning_rate is not a key; did you mean train.lr?"),
        (["+foo=1"], "foo is not a key; --help lists the keys"),
        (["+variant.foo=1"], "variant.foo is not a key; did you mean variant."),
        (["+hydra.launcher.n_job=2", "-m"], "did you mean hydra.launcher.n_jobs?"),
        (
            ["model.architecture.depth=1"],
            "model.architecture.depth is new there; write +model.architecture.depth=<value>",
        ),
        (["+experiment=demo"], "experiment: is chosen already; leave the + out"),
        (["seed=1", "seed=2"], "seed=1 and seed=2 are given for the same key; leave one of them out"),
        (["train={lr:0.1}", "train.lr=0.2"], "train={lr:0.1}: another override sets something else there"),
        (["system.name=fast"], "system.name=fast: has no effect, system.parts names it; leave it out"),
        (
            ["variant.bits=4"],
            "variant.bits=4: has no effect, variant=baseline does not take it; leave it out",
        ),
        (["-m", "variant=baseline,byte-mask", "variant.bits=2,4"], "variant=baseline does not take it"),
        (["dataset.trees.samples=100"], "dataset=digits is not generated"),
        (["model.lora.alpha=2"], "model.lora.alpha=2: has no effect, under the other keys of this run"),
        (["model.lr=0.5"], "model.lr=0.5: has no effect, train.lr=0.002 is taken; leave it out"),
        (["dataset.epochs=2", "train.epochs=3"], "dataset.epochs=2: has no effect, train.epochs=3 is taken"),
        (["-m", "dataset.batch_size=8,16", "train.batch_size=4"], "train.batch_size=4 is taken"),
        (
            ["task=bert-base-sst2", "model.architecture.num_hidden_layers=2"],
            "model.architecture.num_hidden_layers=2: has no effect, a checkpoint has its own (model.pretrained=true)",
        ),
        (
            ["variant.p=0.2", "model.hidden_dropout=0.5"],
            "model.hidden_dropout=0.5: has no effect, variant.p=0.2 is taken at every place",
        ),
        (["dataset.max_length=64"], "dataset.max_length=64: has no effect, under the other keys"),
        (["train.patience=9", "train.select=last"], "train.patience=9: has no effect, under the other keys"),
        (["dataset@robustness.ood=digits"], "robustness.ood is null; write +dataset@robustness.ood=<option>"),
        (
            ["-m", "experiment=exp-1-main-perf", "smoke=true", "smoke=false"],
            "smoke=true and smoke=false are given for the same key",
        ),
        (
            ["~tracking"],
            "~tracking: every run has tracking, which would get its default; write tracking=<value>",
        ),
        (["~train"], "~train: every run has train, which"),
        (["~train.schedule"], "~train.schedule: every run has train.schedule"),
        (["~model"], "~model: every run has model"),
        (["~arm=x"], "write ~arm"),
        (["variant=4"], "variant=4: is not an option; allowed are 2bit, 4bit"),
        (["variant=null"], "variant=null: is not an option; allowed are 2bit"),
        (["arm=null"], "arm=null: is not an option; allowed are baseline-zero2"),
        (
            ["tracking=null"],
            "tracking=null: is not an option; allowed are csv, mlflow, off, tensorboard, wandb",
        ),
        (["variant="], "variant=: is not an option"),
        (["variant=[pm-drop,baseline]"], "names one option; allowed are 2bit"),
        (["train=4"], "train takes keys below it; set train.KEY"),
        (["train=null"], "'train' is not Optional"),
        (["measure=[1]"], "measure takes keys below it"),
        (
            ["robustness.ood.name=x"],
            "robustness.ood.name=x: robustness.ood is null; choose it first, by +dataset@robustness.ood=<option>",
        ),
        (["robustness.ood={name:x}"], "robustness.ood is null; choose it first"),
        (["tracking.uri='http://[::1'"], "tracking.uri: 'http://[::1' is no address (Invalid IPv6 URL)"),
        (
            ["tracking.uri=http://host:99999"],
            "tracking.uri: 'http://host:99999' is no address (Port out of range",
        ),
        (["name=${name}"], "Recursive interpolation"),
        (["name=${oc.env:NOPE}"], "'NOPE' not found"),
        (["-m", "seed=range(0,9999999)"], "are more than 100000 runs"),
        (["-m", "train.lr=range(0,1,0)"], "must not be zero"),
        (["-m", "train.lr=interval(0,1)"], "has no end of values"),
        (["name=float(1)"], "computes what is no text; write the text itself"),
        (
            ["-m", "hydra.launcher.partition=x"],
            "hydra.launcher.partition is a key of hydra/launcher=slurm alone",
        ),
        (["name=a,b"], "several values are a sweep; add -m, or write 'name=\"a,b\"' for one text"),
        (["-m", "--cfg", "job"], "--cfg --multirun: exclude each other"),
        (["seed=1", "--cfg", "moon"], "invalid choice: 'moon'"),
        (["seed=1", "--cfg", "job", "-p", "nope"], "package 'nope' not found in config"),
        (["+foo=1", "--cfg", "job"], "foo is not a key"),
        (["seed=1", "--resolve"], "add --cfg job"),
        (["-cp", "/tmp"], "--config-path and --experimental-rerun: have no meaning here"),
        (["--experimental-rerun", "x"], "have no meaning here"),
        (["--config-dir", "/nope"], "--config-dir: /nope is no folder"),
        (["--config-name", "nope"], "Cannot find primary config 'nope'"),
        (["--shell-completion", "install=bash"], "shell-completion is not a key"),
        (["--nope"], "nope is not a key; did you mean name?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_a_run_would_not_take_is_refused_in_one_line(
    arguments: list[str], said: str, command: Command
) -> None:
    code, _, err = command(*arguments)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1
    assert said in err


def test_of_a_sweep_one_run_is_executed_where_all_its_keys_are_chosen() -> None:
    run = compose_run(first_of("exp-1-main-perf"))
    assert (run.name, run.variant.name, run.model.name) == ("exp-1-main-perf", "baseline", "tinybert")


def test_what_a_variant_has_no_use_for_may_stand_in_a_sweep_with_one_that_has() -> None:
    runs = compose_sweep(["variant=baseline,pm-drop", "variant.bits=4"]).runs
    assert [run.variant.bits for run in runs] == [1, 4]


def test_a_key_that_one_run_of_a_sweep_takes_may_stand_beside_those_that_do_not() -> None:
    runs = compose_sweep(["variant.p=null,0.1", "model.hidden_dropout=0.2"]).runs
    assert len({run.run_id for run in runs}) == 2
    compose_run(["model.scratch_lr=0.5"]), compose_run(["dataset.epochs=2"])


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


TEXTS = [
    "1e3",
    "007",
    "1_000",
    "true",
    "FALSE",
    "0x10",
    "nan",
    "-inf",
    "2024-01-01",
    "on",
    "12e4567",
    "7",
    "1.50",
    ".5",
    "+5",
]


@pytest.mark.parametrize(
    "key",
    [
        "name",
        "dataset.revision",
        "model.hub_id",
        "tracking.uri",
        "protocol.criteria.x.claim",
        "hydra.launcher.partition",
    ],
)
def test_text_stays_as_it_was_typed(key: str) -> None:
    assert [parsed([f"{key}={text}"], launches=True)[0].value() for text in TEXTS] == TEXTS


def test_so_it_does_in_lists_in_mappings_and_in_sweeps() -> None:
    run = compose(
        [f"dataset.text_columns=[{','.join(TEXTS)}]", "name=1e3", "model={hub_id: 007, revision: true}"]
    )
    assert run.dataset.text_columns == TEXTS
    assert (run.name, run.model.hub_id, run.model.revision) == ("1e3", "007", "true")
    runs = compose_sweep(["name=1e3,007", "dataset.label_column=choice(true,7)", *OF_TEXTS]).runs
    labels = [(run.name, run.dataset.label_column) for run in runs]
    assert labels == [("1e3", "true"), ("1e3", "7"), ("007", "true"), ("007", "7")]


def test_every_key_may_be_given_the_value_that_it_has() -> None:
    run = compose(
        ["variant=pm-drop", "dataset=listops", "model=tinybert", "+dataset@robustness.ood=listops-16k"]
    )
    values = {key: value for key, value in flat(run.to_dict()).items() if not run.ignored(key)}
    typed = [f"{key}={_as_override(value)}" for key, value in values.items()]
    before = ["variant=pm-drop", "dataset=listops", "model=tinybert", "+dataset@robustness.ood=listops-16k"]
    assert compose_run([*before, *typed]) == run


def _as_override(value: object) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_as_override, value))}]"
    if isinstance(value, str):
        return QuotedString(value, Quote.double).with_quotes()
    return "null" if value is None else str(value)


def test_null_is_null_where_a_key_may_be_null() -> None:
    run = compose(["dataset.revision=null", "dataset.hub_id=NULL", "train.lr=null"])
    assert (
        run.dataset.revision is None and run.dataset.hub_id is None and run.train.lr == run.model.scratch_lr
    )


def test_a_range_has_the_numbers_that_were_typed() -> None:
    assert [run.train.lr for run in compose_sweep(["train.lr=range(0.1,0.5,0.1)"]).runs] == [
        0.1,
        0.2,
        0.3,
        0.4,
    ]


TINYBERT = ["model=tinybert", "model.pretrained=false"]
OF_TEXTS = ["dataset=sst2", *TINYBERT]


@pytest.mark.parametrize(
    "value", ["~/data", "größe", "data (1)", "a=b", "it's", 'a"b', "x#y", "a\\b;c", "[x", "50~%"]
)
def test_a_value_with_odd_characters_is_answered_with_the_quotes_that_work(
    value: str, command: Command
) -> None:
    code, _, err = command(f"dataset.path={value}")
    assert code == 2 and err.startswith(f"error: dataset.path={value}: has to be quoted")
    (shown,) = shlex.split(err.partition("; write ")[2])
    assert OverridesParser.create().parse_override(shown).value() == value
    assert command(shown, *OF_TEXTS)[0] == 0


def test_so_is_each_value_of_a_list_and_of_a_sweep(command: Command) -> None:
    (shown,) = shlex.split(command("dataset.text_columns=[größe,x y#]")[2].partition("; write ")[2])
    assert compose([shown, *OF_TEXTS]).dataset.text_columns == ["größe", "x y#"]
    (shown,) = shlex.split(command("-m", "dataset.revision=~a,~b")[2].partition("; write ")[2])
    assert [run.dataset.revision for run in compose_sweep([shown, *OF_TEXTS]).runs] == ["~a", "~b"]


@given(st.text(max_size=30))
def test_whatever_the_value_the_quotes_that_are_shown_give_it(value: str) -> None:
    try:
        parsed([f"dataset.path={value}"])
    except UserError as error:
        head, _, shown = str(error).partition(": has to be quoted, also for the shell; write ")
        if head != str(error):
            (word,) = shlex.split(shown)
            assert OverridesParser.create().parse_override(word).value() == value
        else:
            assert not value.isprintable() or "," in value


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


def test_flags_that_show_something_run_nothing(command: Command) -> None:
    code, out, _ = command("variant=pm-drop", "--cfg", "job", "name=1e3")
    assert (
        code == 0
        and yaml.safe_load(out)["name"] == "1e3"
        and yaml.safe_load(out)["variant"]["name"] == "pm-drop"
    )
    assert command("variant=pm-drop", "--cfg", "job", "seed=3", "-p", "variant.bits")[1] == "1\n"
    assert "conf" in command("seed=3", "--info", "searchpath")[1]
    assert command("--version")[1] == f"pmexp {pmexp.__version__}\n"


def test_what_hydra_shows_is_printed_once(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra logs it to stdout, and a second handler of the root logger would show it on stderr again."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    code, out, err = command("seed=3", "--info", "plugins")
    assert code == 0 and out.count("FileConfigSource") == 1 and err == ""


def test_other_commands_refuse_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["+train.warmup_steps=100", "experiment=demo", "~tracking", "dataset.path=~/x"]
    for main, arguments in (
        (fit_main, [*([each] for each in given), ["budget=8e9", "budget=80e9"]]),
        (bench_main, [*(["level=step", each] for each in given), ["level=step", "steps=1", "steps=2"]]),
        (
            data_main,
            [["dataset=digits", "+dataset.foo=1"], ["dataset=digits", "dataset.path=~/x"], ["dataset=4"]],
        ),
    ):
        for each in arguments:
            code, err = main(each), capsys.readouterr().err
            assert code == 2 and err.startswith("error: ") and err.count("\n") == 1
