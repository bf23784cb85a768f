"""The runs of an experiment: the product of its parameters, and the one arm that it has beside that."""

from collections import Counter
from pathlib import Path

import pytest

from pmexp.command.compose import compose_sweep
from pmexp.command.composition import Source
from pmexp.errors import UserError

ARM, CONTROL = "pm-drop-same-masks", "baseline-other-masks"


def arms(*typed: str, source: Source = Source()) -> list[tuple[str, str, int]]:  # noqa: B008  frozen
    return [(run.variant.name, run.model.name, run.seed) for run in compose_sweep(typed, source).runs]


@pytest.mark.parametrize(
    ("experiment", "seeds", "models"),
    [
        ("demo", 5, ["vit-digits"]),
        ("exp-1-main-perf", 5, ["tinybert", "bert-base", "bert-large"]),
        ("exp-2-system-scale", 3, ["longformer-base-4096", "vit-b16"]),
    ],
)
def test_the_baselines_own_masks_are_one_more_arm_of_one_seed(
    experiment: str, seeds: int, models: list[str]
) -> None:
    runs = arms(f"experiment={experiment}")
    assert [run for run in runs if run[0] == ARM] == [(ARM, model, 0) for model in models]
    of_seeds = Counter((variant, model) for variant, model, _ in runs if variant == "baseline")
    assert of_seeds == {("baseline", model): seeds for model in models}


def test_the_arm_keeps_to_what_was_typed() -> None:
    assert ARM not in [run[0] for run in arms("experiment=demo", "variant=baseline,pm-drop")]
    assert ARM not in [run[0] for run in arms("experiment=demo", "variant=baseline", "seed=0,1")]
    assert ARM not in [run[0] for run in arms("experiment=demo", "seed=1,2")]
    assert (ARM, "vit-digits", 0) in arms("experiment=demo", "seed=0,1")
    assert [run[0] for run in arms("experiment=demo", f"variant=baseline,{CONTROL}", "seed=0")].count(
        CONTROL
    ) == 1
    both = arms("experiment=demo", f"variant=baseline,{ARM}", "seed=0,1")
    assert sorted(both) == [(name, "vit-digits", seed) for name in ("baseline", ARM) for seed in (0, 1)]


def test_an_arm_of_another_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nhydra:\n  sweeper:\n    params: {variant: 'baseline,pm-drop', also: train.lr=0.1}\n"
    )
    with pytest.raises(UserError, match=r"also: train\.lr=0\.1 is about a key that the experiment does not"):
        arms("experiment=mine", source=Source(folder=tmp_path))
