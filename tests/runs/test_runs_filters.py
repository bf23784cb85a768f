"""`python -m pmexp.runs` lists the runs of the keys and states that were typed, or says in a line what cannot be."""

import itertools
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from composed import DEFAULT, config
from demo_experiment import HEADINGS, Demo, summary
from pmexp.run_folder.differences import said
from pmexp.run_folder.plan import add_to_plan
from pmexp.runs.choice import is_same


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
        st.none(), st.booleans(), st.integers(0, 2**64), st.floats(0, 1e6).map(lambda x: float(f"{x:.15g}"))
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
