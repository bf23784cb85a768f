"""What was typed is what runs, or is refused in one line: keys, sweeps, and a grammar of overrides."""

import logging
from collections import Counter

import pytest
import yaml

import pmexp
from override_grammar import Grammar
from pmexp.bench.command import main as bench_main
from pmexp.command.compose import compose_run, compose_sweep
from pmexp.data import main as data_main
from pmexp.fit.command import main as fit_main
from small_runs import first_of
from typed_commands import Command

STRINGS = 500


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
        (
            ["-m", "hydra.launcher.n_jobs=1,2", "seed=0,1"],
            "n_jobs=1,2: holds for the whole sweep; give one value",
        ),
        (["-m", "hydra/launcher=slurm,local"], "hydra/launcher=slurm,local: holds for the whole sweep"),
        (
            ["-m", "hydra/launcher=slurm", "hydra.launcher.resources=my site, b"],
            "give one value, or write 'hydra.launcher.resources=\"my site, b\"' for one text",
        ),
        (
            ["-m", "hydra/launcher=slurm", "hydra.launcher.resources=a=b, c"],
            "write 'hydra.launcher.resources=\"a=b, c\"'",
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
        (["+name=x"], "+name: is there already; leave the + out"),
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
        (["--config-dir", "/nope"], "config_dir: /nope is no folder"),
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
