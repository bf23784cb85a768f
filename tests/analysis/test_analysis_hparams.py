"""Grids of hyperparameters: validation chooses, and the test split has no say in it."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmexp_analysis.figures.over_settings import of_experiment
from pmexp_analysis.numbers.hparams import Grid, grids
from pmexp_analysis.pages.tables import grid_table
from pmexp_analysis.sources.assemble import assemble
from pmexp_analysis.sources.experiment import Labels, Run

LR, P = "train.lr", "variant.p"
SEEDS = (0, 1, 2)
Finals = dict[str, float]


def run(lr: float, seed: int, finals: Finals | None, variant: str = "packed", **more: object) -> Run:
    labels = Labels("net/digits", "plain", variant, seed)
    state = "finished" if finals is not None else "out of memory"
    return Run(
        f"{variant} {lr} {seed} {more}", labels, finals, state, "why", settings={LR: lr, "seed": seed, **more}
    )


def made(runs: list[Run]) -> list[Grid]:
    return grids(assemble("demo", "here", runs))


def grid(
    val: dict[float, list[float]], test: Callable[[float, int], float] = lambda lr, seed: lr + seed
) -> Grid:
    runs = [
        run(lr, seed, {"val/accuracy": score, "test/accuracy": test(lr, seed), "val/loss": 9.0})
        for lr, scores in val.items()
        for seed, score in enumerate(scores)
    ]
    (one,) = made(runs)
    return one


VAL = {1e-4: [0.80, 0.82, 0.81], 3e-4: [0.90, 0.70, 0.86], 1e-3: [0.83, 0.84, 0.82]}


def test_the_best_mean_on_validation_is_chosen_and_its_test_values_read() -> None:
    one = grid(VAL)
    assert (one.keys, one.metric, one.test_metric, one.chosen) == (
        (LR,),
        "val/accuracy",
        "test/accuracy",
        (1e-3,),
    )
    assert [s.values for s in one.settings] == [(1e-4,), (3e-4,), (1e-3,)]
    assert [s.mean for s in one.settings] == pytest.approx([0.81, 0.82, 0.83])
    assert [s.std for s in one.settings] == pytest.approx([0.01, math.sqrt(0.0112), 0.01])
    assert [(s.n, s.why) for s in one.settings] == [(3, "")] * 3
    assert one.test == {0: 1e-3, 1: 1 + 1e-3, 2: 2 + 1e-3}


anything = st.one_of(st.floats(0, 1), st.sampled_from([math.nan, 1e9, -1e9]))


@settings(max_examples=25)
@given(st.lists(anything, min_size=9, max_size=9))
def test_the_test_split_changes_neither_choice_nor_validation_numbers(values: list[float]) -> None:
    place = {(lr, seed): place for place, (lr, seed) in enumerate((lr, s) for lr in VAL for s in SEEDS)}
    one = grid(VAL, lambda lr, seed: values[place[lr, seed]])
    expected = grid(VAL)
    assert replace(one, test={}) == replace(expected, test={})


def test_without_any_test_value_the_choice_stands() -> None:
    runs = [run(lr, s, {"val/accuracy": v}) for lr, scores in VAL.items() for s, v in enumerate(scores)]
    (one,) = made(runs)
    assert (one.chosen, one.test_metric, one.test) == ((1e-3,), None, {})


def test_without_validation_there_is_no_grid() -> None:
    assert made([run(lr, 0, {"test/accuracy": lr}) for lr in VAL]) == []
    assert made([run(1e-3, seed, {"val/accuracy": 0.5}) for seed in SEEDS]) == []  # one value is no grid


@pytest.mark.parametrize("how", ["out of memory", "diverged", "not finite training loss"])
def test_a_setting_that_lost_a_run_is_shown_and_not_chosen(how: str) -> None:
    val, loss = (math.nan if how == "diverged" else 0.99), (math.nan if how.startswith("not") else 1.0)
    runs = [run(lr, s, {"val/accuracy": v}) for lr, scores in VAL.items() for s, v in enumerate(scores)]
    runs = [
        *(one for one in runs if one.settings[LR] != 1e-3 or one.labels.seed != 1),
        run(1e-3, 1, None if how == "out of memory" else {"val/accuracy": val, "train/loss": loss}),
    ]
    (one,) = made(runs)
    assert one.chosen == (3e-4,)
    assert one.settings[2].why == (how if how == "out of memory" else "diverged")
    assert one.settings[2].n == (3 if how.startswith("not") else 2)


def test_a_setting_that_was_never_run_with_a_seed_is_not_chosen() -> None:
    runs = [run(lr, s, {"val/accuracy": v}) for lr, scores in VAL.items() for s, v in enumerate(scores)]
    runs = [one for one in runs if one.settings[LR] != 1e-3]
    (one,) = made([*runs, run(1e-3, 0, {"val/accuracy": 0.99})])
    assert one.chosen == (3e-4,)
    assert one.settings[2].why == f"no run of seeds {', '.join(map(str, SEEDS[1:-1]))} and {SEEDS[-1]}"


def test_no_setting_is_chosen_where_all_lost_runs() -> None:
    runs = [run(lr, 0, {"val/accuracy": 0.5}) for lr in (1e-4, 1e-3)]
    runs += [run(lr, 1, None) for lr in (1e-4, 1e-3)]
    (one,) = made(runs)
    assert (one.chosen, one.test) == (None, {})


def test_a_tie_is_named_and_goes_to_the_smaller_setting_in_any_order_of_runs() -> None:
    for val in ({1e-3: [0.8], 1e-4: [0.8], 1e-2: [0.7]}, {1e-4: [0.8], 1e-2: [0.7], 1e-3: [0.8]}):
        one = grid(val)
        assert (one.chosen, one.tied) == ((1e-4,), [(1e-4,), (1e-3,)])
        assert one.rule == "2 settings tie; chosen by the smallest values, key by key"
        assert [cells[-1] for cells in grid_table(one).cells] == [
            "chosen (2 settings tie; chosen by the smallest values, key by key)",
            "tied with the chosen one",
            "",
        ]
    assert (grid(VAL).tied, grid(VAL).rule) == ([], "")


def test_a_tie_is_decided_by_the_validation_loss_where_it_differs() -> None:
    losses = {1e-4: 0.5, 1e-3: 0.3, 1e-2: 0.4}
    scores = {1e-4: (0.8, 0.7, 0.9), 1e-3: (0.9, 0.8, 0.7), 1e-2: (0.1, 0.2, 0.3)}  # equal but for rounding
    runs = [
        run(lr, seed, {"val/accuracy": scores[lr][seed], "val/loss": loss, "test/accuracy": lr})
        for lr, loss in losses.items()
        for seed in SEEDS
    ]
    (one,) = made(runs)
    assert (one.chosen, one.tied) == ((1e-3,), [(1e-4,), (1e-3,)])
    assert one.rule == "2 settings tie; chosen by the lower validation loss" and set(one.test.values()) == {
        1e-3
    }


def test_ties_are_listed_under_the_heat_map() -> None:
    runs = [run(lr, 0, {"val/accuracy": 0.5}, **{P: p}) for lr in (0.25, 0.5) for p in (0.0, 0.125)]
    drawn = of_experiment(assemble("demo", "here", runs), [], made(runs), {})
    (about,) = [one.caption for one in drawn if one.name == "grid-1"]
    assert "4 settings tie; chosen by the smallest values" in about
    assert "train.lr=0.25, variant.p=0; train.lr=0.25, variant.p=0.125; train.lr=0.5, variant.p=0; " in about


def test_a_loss_is_to_be_small() -> None:
    runs = [
        run(lr, 0, {"val/loss": loss, "test/loss": 1.0})
        for lr, loss in ((1e-4, 0.5), (1e-3, 0.3), (1e-2, 0.4))
    ]
    (one,) = made(runs)
    assert (one.metric, one.chosen) == ("val/loss", (1e-3,))


def test_a_grid_of_two_keys_a_variant() -> None:
    runs = [
        run(lr, 0, {"val/accuracy": lr + p + ("b" in v) / 8}, variant=v, **{P: p})
        for v in ("baseline", "packed")
        for lr in (0.25, 0.5)
        for p in (0.0, 0.125)
    ]
    by_variant = {one.variant: one for one in made(runs)}
    assert set(by_variant) == {"baseline", "packed"}
    for one in by_variant.values():
        assert one.keys == (LR, P) and one.chosen == (0.5, 0.125)
        assert [s.values for s in one.settings] == [(0.25, 0.0), (0.25, 0.125), (0.5, 0.0), (0.5, 0.125)]
