"""What tells runs apart: the one function behind live lines, lists, trackers and reports."""

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pmexp.run_folder.differences import keys_of, said, swept, told_apart, words_of

LABELS = {"task": "net/d", "model": "net", "dataset": "d", "variant": "base", "system": "plain", "seed": 0}
SETTINGS = {"seed": 0, "model.name": "net", "train.lr": 0.1, "variant.bits": 1, "variant.p": None}
# Each is one value however it is compared: 1, 1.0 and True would be equal and not be typed alike.
values = st.sampled_from([0.1, 2, None, "word", [1, 2], ["a", "b"]])
settings = st.fixed_dictionaries({"train.lr": values, "variant.p": values, "system.matmul": values})
labels = st.sampled_from([LABELS, LABELS | {"variant": "packed"}, LABELS | {"system": "bf16"}])


def test_a_sweep_over_two_keys_is_named_by_them() -> None:
    runs = {
        (lr, p, seed): (LABELS | {"seed": seed}, SETTINGS | {"train.lr": lr, "variant.p": p, "seed": seed})
        for lr, p, seed in itertools.product((0.001, 0.1), (0.2, None), (0, 1))
    }
    apart = told_apart(runs)
    assert {words_of(each) for each in apart.values()} == {
        "train.lr=0.001 variant.p=0.2",
        "train.lr=0.001 variant.p=null",
        "train.lr=0.1 variant.p=0.2",
        "train.lr=0.1 variant.p=null",
    }
    assert keys_of(apart.values()) == ["train.lr", "variant.p"]
    assert swept(apart.values()) == "train.lr=0.001,0.1 variant.p=0.2,null"


def test_what_follows_from_a_label_is_said_by_the_label() -> None:
    runs = {
        "a": (LABELS, SETTINGS),
        "b": (LABELS | {"variant": "packed"}, SETTINGS | {"variant.bits": 2}),
        "c": (LABELS | {"task": "other/d", "model": "other"}, SETTINGS | {"train.lr": 0.5}),
        "d": (LABELS | {"system": "bf16"}, SETTINGS | {"system.parts": ["bf16"]}),
        "no settings": (LABELS, {}),
        "unreadable": ({}, {}),
    }
    assert {name: words_of(each) for name, each in told_apart(runs).items()} == {
        "a": "model=net system=plain",
        "b": "model=net system=plain",
        "c": "model=other system=plain",
        "d": "model=net system=bf16",
        "no settings": "model=net system=plain",
        "unreadable": "",
    }


def test_an_option_that_one_run_is_without_tells_it_apart() -> None:
    rank = SETTINGS | {"variant.options.rank": 2}
    runs = {
        "none": (LABELS, SETTINGS),
        "rank": (LABELS, rank),
        "deep": (LABELS, rank | {"variant.options.deep.a": [1, 2]}),
        "another variant": (LABELS | {"variant": "packed"}, SETTINGS),
        "younger key": (LABELS, SETTINGS | {"train.younger": 1}),
        "no settings": (LABELS, {}),
    }
    assert {name: words_of(each) for name, each in told_apart(runs).items()} == {
        "none": "",
        "rank": "variant.options.rank=2",
        "deep": "variant.options.rank=2 variant.options.deep.a=[1,2]",
        "another variant": "",
        "younger key": "",
        "no settings": "",
    }
    alone = {name: runs[name] for name in ("rank", "another variant", "no settings")}
    assert set(map(words_of, told_apart(alone).values())) == {""}


def test_a_run_alone_and_seeds_have_nothing_to_name() -> None:
    assert told_apart({}) == {}
    seeds = {seed: (LABELS | {"seed": seed}, SETTINGS | {"seed": seed}) for seed in range(3)}
    assert told_apart(seeds) == {0: {}, 1: {}, 2: {}} and swept([{}]) == ""


@given(st.lists(st.tuples(labels, settings), max_size=6))
def test_runs_of_one_label_have_equal_words_where_their_settings_are_equal_and_only_there(
    runs: list[tuple[dict[str, Any], dict[str, Any]]],
) -> None:
    words = {number: words_of(each) for number, each in told_apart(dict(enumerate(runs))).items()}
    for one, other in itertools.combinations(range(len(runs)), 2):
        if runs[one][0] == runs[other][0]:
            assert (words[one] == words[other]) == (runs[one][1] == runs[other][1])


@given(st.lists(st.tuples(labels, settings), max_size=6))
def test_what_a_tracker_kept_as_text_is_named_alike(
    runs: list[tuple[dict[str, Any], dict[str, Any]]],
) -> None:
    kept = [(of, {key: str(value) for key, value in told.items()}) for of, told in runs]
    for one, other in zip(
        told_apart(dict(enumerate(runs))).values(), told_apart(dict(enumerate(kept))).values(), strict=True
    ):
        assert words_of(one) == words_of(other)


def test_values_are_said_as_they_are_typed() -> None:
    told = {"null": None, "true": True, "[bf16,tempo]": ["bf16", "tempo"], "0.001": 1e-3, "1e-05": 1e-5}
    assert [said(value) for value in told.values()] == list(told)
