"""A key that is typed, or stands in a file, in another form than it takes: one line of ours with the right form."""

from dataclasses import is_dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmexp.command.compose import compose_run
from pmexp.command.composition import Source
from pmexp.command.explain import explained
from pmexp.command.overrides import parsed
from pmexp.command.schema import group_of, keys, type_at
from pmexp.errors import UserError

FORMS = ("[a,b]", "{a: 1}", "[[a],b]", "[{a: 1}]", "[]", "{}", "null", "0.5", "word", "[null]")
THEIRS = (
    "Config",
    "merge",
    "Optional",
    "Invalid value assigned",
    "Cannot",
    "Error",
    "unhashable",
    "isinstance",
)
OF_RUN = [
    key
    for key in keys()
    if not key.startswith("hydra") and not group_of(key) and not is_dataclass(type_at(key))
]


@given(st.sampled_from(OF_RUN), st.sampled_from(FORMS))
def test_whatever_form_is_typed_the_words_are_ours(key: str, form: str) -> None:
    said = f"{key}: taken"
    try:
        with explained():
            parsed([f"{key}={form}"])
    except UserError as error:
        said = str(error)
    assert said.startswith(key) and not any(word in said for word in THEIRS)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            "dataset.text_columns=text",
            "dataset.text_columns takes a list of texts; write 'dataset.text_columns=[text]'",
        ),
        ("dataset.text_columns={a: 1}", "takes a list of texts; write 'dataset.text_columns=[word]'"),
        ("dataset.text_columns=null", "takes a list of texts"),
        ("dataset={text_columns: text}", "dataset.text_columns takes a list of texts"),
        ("system.parts=tempo", "takes a list of names; write 'system.parts=[tempo]'"),
        ("measure.updates=[[1]]", "takes a list of whole numbers; write 'measure.updates=[3]'"),
        ("model.lora.targets=[{a: 1}]", "takes a list of texts"),
        (
            "model.options=3",
            "model.options=3: model.options takes a mapping; write 'model.options={name: value}'",
        ),
        ("name=[a]", "name takes one text; write name=word, or leave it out"),
        ("seed=null", "seed takes one whole number; write seed=3, or leave it out"),
        ("train.schedule=0.5", "train.schedule takes one name; allowed are linear, cosine, constant"),
        ("train=4", "train=4: train takes keys below it; set train.KEY"),
    ],
)
def test_the_right_form_is_shown(typed: str, said: str) -> None:
    with pytest.raises(UserError) as refused, explained():
        compose_run([typed])
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "text_columns: text",
            "mine.yaml: dataset.text_columns takes a list of texts; write text_columns: [text]",
        ),
        ("options: 3", "dataset.options takes a mapping; write options: {name: value}"),
        ("epochs: [3]", "dataset.epochs takes one whole number; write epochs: 3, or leave it out"),
        (
            "epochs: many",
            "dataset/mine.yaml: dataset.epochs: 'many' is no whole number; write one, such as 3",
        ),
        ("kind: digit", "dataset/mine.yaml: dataset.kind: 'digit' is unknown; did you mean digits? "),
        ("trees: 3", "dataset.trees takes keys below it; set dataset.trees.KEY"),
    ],
)
def test_so_it_is_of_a_file(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.yaml").write_text(f"name: mine\n{line}\n")
    with pytest.raises(UserError) as refused, explained():
        compose_run(["dataset=mine"], Source(folder=tmp_path))
    assert said in str(refused.value)
