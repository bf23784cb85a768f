"""Text stays as it was typed, whatever YAML or Hydra would make of it, and odd characters are answered with quotes that work."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hypothesis import given
from hypothesis import strategies as st

from pmexp.command.compose import compose, compose_run, compose_sweep
from pmexp.command.overrides import parsed
from pmexp.config import flat
from pmexp.errors import UserError
from typed_commands import OF_TEXTS, Command

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
