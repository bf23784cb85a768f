"""share_training: of variants that are one training one trains, the others measure, and the report says so."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from pmexp.command.compose import compose, compose_run, compose_sweep
from pmexp.config import Part, Rng, RunConfig, SystemConfig, VariantConfig, Where, share_trainings
from pmexp.config.train import MEASURED_STEPS
from pmexp.errors import UserError
from pmexp.fit.command import main as fit
from pmexp.training.run import run
from pmexp_analysis.criteria import judge
from pmexp_analysis.numbers import compare
from pmexp_analysis.numbers.evidence import evidence_of
from pmexp_analysis.sources.folders import load_runs
from run_folders import Runs
from small_runs import TINY_VIT

FIVE = "variant=baseline,pm-drop,no-cache,4bit,pm-drop-recompute"
MEASURED = ("no-cache", "4bit", "pm-drop-recompute")
TAKEN, STEPS = 8, 12  # what a run that measures alone takes, and the training
SHORT = [
    *TINY_VIT,
    f"train.max_steps={STEPS}",
    "train.log_every=3",
    "measure.kept_graph=true",
    "tracking=off",
]


def sweep(*keys: str) -> dict[str, RunConfig]:
    return {run.variant.name: run for run in compose_sweep([*keys, "seed=0"]).runs}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, RunConfig]]:
    """A folder of runs, and the finished runs by variant."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pmexp.config.train.MEASURED_STEPS", TAKEN)
        configs = sweep(FIVE, *SHORT, "share_training=true", f"runs_dir={folder}")
        for config in configs.values():
            run(config)
    return folder, configs


def summary_of(config: RunConfig) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((config.folder / "summary.json").read_text())
    return summary


def last_step(config: RunConfig) -> int:
    lines = (config.folder / "journal.jsonl").read_text().splitlines()
    return max(json.loads(line)["step"] for line in lines)


def test_one_training_is_taken_to_its_end_once(trained: tuple[Path, dict[str, RunConfig]]) -> None:
    _, configs = trained
    ends = {name: last_step(config) for name, config in configs.items()}
    assert ends == {"baseline": STEPS, "pm-drop": STEPS} | dict.fromkeys(MEASURED, TAKEN)
    for name in MEASURED:
        summary = summary_of(configs[name])
        assert summary["outcome"] == {
            "training": f"training shared with run {configs['pm-drop'].run_id}",
            "measured_steps": TAKEN,
        }
        assert summary["labels"]["variant"] == f"{name} (measured only)"
        assert not [metric for metric in summary["metrics"] if metric.startswith(("train/", "val/", "test/"))]
        assert not {"memory/peak_bytes", "energy/joules", "speed/epoch_s"} & summary["metrics"].keys()
        assert {"speed/step_ms", "memory/peak_tensor_bytes"} <= summary["metrics"].keys()


def test_what_tells_them_apart_is_measured(trained: tuple[Path, dict[str, RunConfig]]) -> None:
    metrics = {name: summary_of(config)["metrics"] for name, config in trained[1].items()}
    assert metrics["4bit"]["memory/mask_bytes"] == 4 * metrics["no-cache"]["memory/mask_bytes"]
    assert metrics["pm-drop"]["memory/mask_bytes"] == metrics["no-cache"]["memory/mask_bytes"]
    kept = {name: one["kept_graph/peak_tensor_bytes"] for name, one in metrics.items()}
    # The first keeps bits, the second unpacked masks beside them.
    assert kept["no-cache"] < kept["pm-drop"] < kept["baseline"]
    assert all(one["kept_graph/second_backward_ms"] > 0 for one in metrics.values())


def test_a_kept_graph_leaves_the_training_as_it_is(
    trained: tuple[Path, dict[str, RunConfig]], tmp_path: Path
) -> None:
    keys = [key for key in SHORT if "kept_graph" not in key]
    plain = compose_run([*keys, "variant=pm-drop", f"runs_dir={tmp_path}"])
    run(plain)
    own, other = (summary_of(config) for config in (plain, trained[1]["pm-drop"]))
    assert own["outcome"] == other["outcome"]
    assert own["metrics"]["test/accuracy"] == other["metrics"]["test/accuracy"]


def test_a_run_of_memory_and_speed_evaluates_nothing(tmp_path: Path) -> None:
    keys = [*TINY_VIT, "train.max_steps=2", "tracking=off", "train.evaluate=false"]
    config = compose_run([*keys, "train.select=last", f"runs_dir={tmp_path}"])
    run(config)
    metrics = summary_of(config)["metrics"]
    assert {"train/loss", "memory/peak_bytes", "inference/ms_per_sample"} <= metrics.keys()
    assert not [name for name in metrics if name.startswith(("val/", "test/"))]
    with pytest.raises(UserError, match=r"train\.evaluate: false leaves nothing to select weights by"):
        compose_run(keys)


def test_the_report_counts_one_training(trained: tuple[Path, dict[str, RunConfig]]) -> None:
    experiment = load_runs(trained[0], "default")
    evidence = evidence_of(experiment)
    assert {variant for _, _, variant in evidence.trainings} == {"baseline", "pm-drop"}
    ((at, (said,)),) = evidence.remarks().items()
    assert at == ("vit-digits/digits", "plain")
    assert (
        f"{', '.join(f'{name} (measured only)' for name in sorted(MEASURED))}: the training is shared with pm-drop"
        in said
    )
    assert not [said for said in evidence.warnings() if "to share" in said]
    scored = {row.variant for row in compare.rows(experiment.values) if row.metric == "test/accuracy"}
    assert scored == {"baseline", "pm-drop"}
    assert not experiment.missing


def finished(runs: Runs, variant: str, seed: int, losses: list[float], **more: Any) -> None:
    settings = {"train.shared_with": more.pop("shared_with", None)}
    finals = {
        "memory/mask_bytes": 1.0,
        **({} if settings["train.shared_with"] else {"test/accuracy": 0.9 + seed / 99}),
    }
    runs.finished(
        variant, seed, finals, losses, run_id=f"{variant.split()[0]}-s{seed}", settings=settings, **more
    )


def test_quality_is_judged_on_the_training_alone(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    quality = {
        "claim": "as good",
        "metric": "score",
        "statistic": "difference_in_sigma",
        "comparison": "no_worse",
    }
    protocol = {"criteria": {"quality": {**quality, "threshold": 0.2}}}
    for seed in range(3):
        for variant in ("baseline", "pm-drop"):
            finished(runs, variant, seed, [3.0, 2.0, 1.0], protocol=protocol)
        finished(
            runs, "4bit (measured only)", seed, [3.0, 2.0], shared_with=f"pm-drop-s{seed}", protocol=protocol
        )
    experiment = load_runs(tmp_path, "demo")
    (judged,) = judge(experiment, [])
    assert [part.n for part in judged.parts] == [3] and judged.value == 0
    assert {
        one.variant
        for one in compare.comparisons(experiment.values, experiment.protocol)
        if one.metric == "test/accuracy"
    } == {"pm-drop"}


def test_steps_that_are_not_those_of_the_training_are_a_warning(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    finished(runs, "pm-drop", 0, [3.0, 2.0, 1.0])
    finished(runs, "4bit (measured only)", 0, [3.0, 2.5], shared_with="pm-drop-s0")
    (warning,) = evidence_of(load_runs(tmp_path, "demo")).warnings()
    assert "4bit (measured only) was to share the training of pm-drop" in warning
    assert "differ in seed 0, from step 2 on" in warning


def test_a_training_without_result_is_named(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    finished(runs, "4bit (measured only)", 0, [3.0, 2.5], shared_with="pm-drop-s0")
    ((said,),) = evidence_of(load_runs(tmp_path, "demo")).remarks().values()
    assert "shared with run pm-drop-s0, which has no result" in said


def test_who_trains_and_what_keeps_its_id() -> None:
    one = compose(["variant=baseline", "share_training=true"])
    packed = {"bits": [1, 2, 4], "cache_unpacked": [True, False], "recompute": [False, True]}
    options = [dict(zip(packed, values, strict=True)) for values in product(*packed.values())]
    kept = [VariantConfig(name=f"kept-{n}", dropout="packed", **each) for n, each in enumerate(options)]
    others = [
        VariantConfig(name="torch", dropout="packed", rng=Rng.torch),
        VariantConfig(name="flips", dropout="packed", flip_rate=0.5),
        VariantConfig(name="hidden", dropout="packed", where=Where.hidden),
        VariantConfig(name="seeded", dropout="seeded"),
        one.variant,
    ]
    runs = [replace(one, variant=variant) for variant in [*others, *kept]]
    shared = share_trainings(runs)
    assert [run.train.shared_with for run in shared[:6]] == [None] * 6 and shared[:6] == runs[:6]
    assert {run.train.shared_with for run in shared[6:]} == {runs[5].run_id}  # the first of them trains
    judged = [
        replace(run, protocol=replace(run.protocol, method="kept-3", baseline="kept-5")) for run in runs
    ]
    trained = [run.variant.name for run in share_trainings(judged)[5:] if not run.train.shared_with]
    assert trained == ["kept-3", "kept-5"]  # what criteria judge and compare with has a training of its own
    unasked = [replace(run, share_training=False) for run in runs]
    assert share_trainings(unasked) == unasked
    assert [run.run_id for run in unasked] == [run.run_id for run in runs]
    compiled = [replace(run, system=SystemConfig(parts=[Part.compile])) for run in runs]
    assert share_trainings(compiled) == compiled


def test_one_run_shares_with_none() -> None:
    with pytest.raises(UserError, match="share_training: is about the runs of a sweep; leave it out"):
        compose_run(["variant=4bit", "share_training=true"])


def test_the_cost_of_what_is_shared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times = tmp_path / "times.json"
    times.write_text(json.dumps({"tinybert/mrpc at 128": 10.0}))
    keys = ["variant=pm-drop,4bit", "share_training=true", f"step_times={times}"]
    assert fit(["cost=true", "task=tinybert-mrpc", *keys]) == 0
    rows = [
        line.split(" | ")[:3] for line in capsys.readouterr().out.splitlines() if line.startswith("| tiny")
    ]
    assert rows == [
        ["| tinybert/mrpc at 128", "1", str(3 * (3668 // 32))],
        ["| tinybert/mrpc at 128 (measured only)", "1", str(MEASURED_STEPS)],
    ]
