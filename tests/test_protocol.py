"""An experiment's question and criteria as keys of its YAML, through the composition."""

import copy
import subprocess
import sys
from pathlib import Path

import hydra
import pytest
import yaml
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pmexp.command.compose import compose, compose_sweep
from pmexp.command.composition import introduce
from pmexp.command.explain import explain
from pmexp.command.schema import conf_folder
from pmexp.config import RunConfig, parse
from pmexp.config.run import from_dict
from pmexp.errors import UserError
from pmexp.metrics.catalog import metric_of
from pmexp.protocol import SCORES, Bound, Statistic
from small_runs import first_of

EXPERIMENTS = sorted((conf_folder() / "experiment").rglob("*.yaml"))
CRITERIA = sorted(file.stem for file in (conf_folder() / "criteria").glob("*.yaml"))


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_every_experiment_has_its_files_name_and_a_question_that_can_be_answered(file: Path) -> None:
    option = file.relative_to(conf_folder() / "experiment").with_suffix("")
    run = compose(first_of(str(option)))
    assert run.name == (option.name if option.name == str(option) else f"{option.name}-smoke")
    protocol = run.protocol
    assert protocol.question.endswith("?") and protocol.baseline != protocol.method
    assert protocol.criteria and set(protocol.criteria) <= set(CRITERIA)
    assert all(criterion.claim for criterion in protocol.criteria.values())


def test_every_criterion_of_the_folder_passes_the_checks_and_judges_what_is_measured() -> None:
    criteria = compose([f"criteria@protocol.criteria=[{','.join(CRITERIA)}]"]).protocol.criteria
    assert sorted(criteria) == CRITERIA
    for criterion in criteria.values():
        for metric in filter(None, (criterion.metric, criterion.drop_from)):
            assert metric in SCORES or metric_of(metric).label
    # The absence of evidence for a slower step (p_worse) is no claim of ours, and no metric of ours lacks a better
    # end, which `within` is for: both are there for protocols of others and of earlier runs.
    assert {criterion.statistic for criterion in criteria.values()} == set(Statistic) - {
        Statistic.p_worse,
        Statistic.own,
    }
    assert {criterion.comparison for criterion in criteria.values()} == set(Bound) - {Bound.within}


def test_a_threshold_is_a_key_of_the_command_line() -> None:
    run = compose(["protocol.criteria.throughput.threshold=0.03", "protocol.method=4bit"])
    assert run.protocol.criteria["throughput"].threshold == 0.03
    assert (run.protocol.method, run.protocol.criteria["throughput"].statistic.name) == (
        "4bit",
        "relative_change",
    )


def test_the_protocol_is_no_part_of_a_runs_identity() -> None:
    plain = compose([])
    other = compose(
        [
            "protocol.method=4bit",
            "protocol.question=Why?",
            "criteria@protocol.criteria=[only-fits]",
            "protocol.family=task",
        ]
    )
    assert other.run_id == plain.run_id and other.settings == plain.settings
    assert other.to_dict()["protocol"] != plain.to_dict()["protocol"]
    assert compose(["seed=1"]).run_id != plain.run_id


def chosen() -> DictConfig:
    """What Hydra composes with every criterion, before it is parsed: to compose it again takes a second."""
    introduce()
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return hydra.compose("config", [f"criteria@protocol.criteria=[{','.join(CRITERIA)}]"])


CHOSEN = chosen()


def changed(config: DictConfig, override: str) -> RunConfig:
    key, _, value = override.partition("=")
    copied = copy.deepcopy(config)
    OmegaConf.update(copied, key, yaml.safe_load(value))
    return parse(copied)


@pytest.mark.parametrize(
    "override",
    ["metric=speed/unheard", "threshold=much", "treshold=1", "statistic=median", "comparison=above"],
)
def test_the_command_line_says_so_in_one_line(override: str) -> None:
    with pytest.raises((UserError, HydraException, OmegaConfBaseException)) as refused:
        compose([THROUGHPUT + override])
    text = str(refused.value) if isinstance(refused.value, UserError) else explain(refused.value)
    assert "\n" not in text and THROUGHPUT + override.partition("=")[0] in text


AT_MOST = "comparison=at_most"
THROUGHPUT = "protocol.criteria.throughput."


@pytest.mark.parametrize(
    ("override", "key", "said"),
    [
        ("metric=speed/unheard", "metric", "'speed/unheard' is no metric; allowed are score, test/score"),
        ("metric=null", "metric", "statistic=relative_change needs a metric"),
        ("statistic=diverged", "metric", "is about runs: leave metric out"),
        ("drop_from=fast", "drop_from", "'fast' is no metric"),
        ("over=train.batch_size", "over", "statistic=relative_change has no over: leave it out"),
        ("statistic=growth_exponent", "over", "needs over=<a numeric key of the run>"),
        (
            "statistic=mean",
            "comparison",
            "no_worse; statistic=mean has no margin, relative_change, difference",
        ),
        ("threshold=0", "threshold", "0.0 must be above 0 for comparison=no_worse"),
        ("threshold=-0.02", "threshold", "-0.02 must be above 0 for comparison=no_worse"),
        ("metric=grad/norm", "comparison", "no_worse; grad/norm has no better end: use within"),
        ("threshold=.nan", "threshold", "nan must be"),
        ("threshold=.inf", "threshold", "inf must be a number"),
        ("tasks=[]", "tasks", "[] matches no task"),
    ],
)
def test_a_criterion_that_could_never_be_judged_is_refused(override: str, key: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        changed(CHOSEN, THROUGHPUT + override)
    text = str(refused.value)
    assert "\n" not in text
    assert THROUGHPUT + key in text
    assert said in text


@pytest.mark.parametrize(
    ("criterion", "override", "said"),
    [
        ("gradient-check", "against=1.0", "against: 1.0; statistic=mean has no against: leave it out"),
        ("no-divergence", "against=1.0", "against: 1.0; statistic=diverged has no against"),
        ("no-divergence", "drop_from=score", "drop_from: score; statistic=diverged has no drop_from"),
        ("saving-over-length", "drop_from=score", "drop_from: score; statistic=growth_exponent has no drop"),
        ("only-fits", "metric=test/loss", "metric: test/loss; statistic=only_fits is about runs"),
    ],
)
def test_a_key_that_a_statistic_would_ignore_is_refused(criterion: str, override: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        changed(CHOSEN, f"protocol.criteria.{criterion}.{override}")
    assert str(refused.value).startswith(f"protocol.criteria.{criterion}.{said}")


FRACTION = "it is a fraction, so that 0.05 is 5 %"


@pytest.mark.parametrize(
    ("criterion", "threshold", "said"),
    [
        (
            "memory-large",
            -5,
            f"-5 must be at least -1 and at most 1 for statistic=relative_change, {AT_MOST}; {FRACTION}",
        ),
        ("memory-large", 5, "5 must be at least -1 and at most 1"),
        (
            "throughput",
            2,
            "2 must be above 0 and at most 1 for statistic=relative_change, comparison=no_worse",
        ),
        (
            "throughput",
            1,
            "1; the relative_change of speed/samples_per_s is from -1 to inf, so that no_worse 1",
        ),
        ("mask-compression", 0, "0 must be above 0 for statistic=times_smaller, comparison=at_least"),
        ("mask-compression", -7.5, "-7.5 must be above 0"),
        ("larger-batch", 0, "0 must be above 0 for statistic=largest_ratio"),
        ("no-divergence", -1, f"-1 must be at least 0 for statistic=diverged, {AT_MOST}"),
        ("unchanged", -1, "-1 must be at least 0 for statistic=unchanged"),
        ("only-fits", 0, "0 must be above 0 for statistic=only_fits, comparison=at_least"),
    ],
)
def test_a_threshold_that_cannot_be_meant_is_refused_where_it_is_written(
    criterion: str, threshold: float, said: str
) -> None:
    override = f"protocol.criteria.{criterion}.threshold={threshold}"
    with pytest.raises(UserError) as refused:
        changed(CHOSEN, override)
    assert str(refused.value).startswith(f"protocol.criteria.{criterion}.threshold: {said}")


@pytest.mark.parametrize(
    "override",
    [
        "memory-large.threshold=-1",
        "memory-large.threshold=1",
        "step-time.threshold=1",
        "robust-fgsm.threshold=1.9",
        "unchanged.threshold=3",
    ],
)
def test_a_threshold_at_the_end_of_what_can_be_is_taken(override: str) -> None:
    changed(CHOSEN, f"protocol.criteria.{override}")


def judged(metric: str, *claim: str) -> list[str]:
    keys = (f"metric={metric}", *claim)  # the statistic of this criterion is a difference
    chosen = ["dataset=digits", "criteria@protocol.criteria=[robust-bit-flips]"]
    return [*chosen, *(f"protocol.criteria.robust-bit-flips.{key}" for key in keys)]


@pytest.mark.parametrize(
    ("metric", "claim", "said"),
    [
        ("score", ["comparison=at_least", "threshold=-1"], "cannot fail"),
        ("test/accuracy", ["comparison=at_least", "threshold=-1.5"], "cannot fail"),
        ("val/score", ["comparison=at_most", "threshold=1"], "cannot fail"),
        ("score", ["comparison=no_worse", "threshold=1"], "cannot fail"),
        ("score", ["comparison=within", "threshold=5"], "cannot fail"),
        ("score", ["comparison=no_worse", "threshold=0.6", "against=0.5"], "cannot fail"),
        ("score", ["comparison=at_least", "threshold=1.01"], "cannot be met"),
        ("score", ["comparison=at_least", "threshold=-0.5", "against=0.5"], "cannot fail"),
        ("test/mcc", ["comparison=at_least", "threshold=-2"], "cannot fail"),
        ("ood/score", ["comparison=at_most", "threshold=2", "drop_from=test/score"], "cannot fail"),
    ],
)
def test_a_threshold_beyond_what_a_score_can_be_is_refused(metric: str, claim: list[str], said: str) -> None:
    with pytest.raises(
        UserError, match=rf"^protocol.criteria.robust-bit-flips.threshold: .* {said}; choose one"
    ):
        compose(judged(metric, *claim))


@pytest.mark.parametrize(
    ("metric", "claim"),
    [
        ("score", ["comparison=at_least", "threshold=-0.99"]),
        ("score", ["comparison=at_least", "threshold=-1", "tasks=['bert-large/*']"]),  # another task's
        ("score", ["comparison=within", "threshold=0.6", "against=0.3"]),
        ("test/bleu", ["comparison=at_least", "threshold=-1"]),
        ("test/mcc", ["comparison=at_least", "threshold=-1"]),
        ("ood/score", ["comparison=at_most", "threshold=1", "drop_from=test/score"]),
        ("test/loss", ["comparison=at_most", "threshold=5"]),
    ],
)
def test_a_threshold_that_a_score_can_reach_is_taken(metric: str, claim: list[str]) -> None:
    assert compose(judged(metric, *claim)).protocol.criteria


def test_a_score_of_ones_own_can_be_anything() -> None:
    metrics = "dataset.metrics=[own_methods.spoils,accuracy]"
    compose([*judged("score", "comparison=at_least", "threshold=-1"), metrics])


def test_a_sweep_and_a_run_refuse_the_same_threshold() -> None:
    typed = ["criteria@protocol.criteria=[memory-large]", "protocol.criteria.memory-large.threshold=5"]
    with pytest.raises(UserError, match="5 must be at least -1 and at most 1"):
        compose(typed)
    with pytest.raises(UserError, match="5 must be at least -1 and at most 1"):
        compose_sweep([*typed, "seed=0,1"])


def test_a_run_that_was_started_under_such_a_threshold_keeps_it() -> None:
    criterion = {"metric": "score", "statistic": "relative_change", "threshold": 5.0}
    told = compose([]).to_dict()
    told["protocol"]["criteria"] = {"loose": criterion}
    assert from_dict(told).protocol.criteria["loose"].threshold == 5.0


def test_configuration_and_analysis_share_it_without_hydra_and_torch() -> None:
    code = "import sys, pmexp.protocol; print(sorted({'torch', 'hydra', 'omegaconf', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
