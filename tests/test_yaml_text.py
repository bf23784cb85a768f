"""YAML in which a key is given twice is refused; all other YAML is read as PyYAML reads it."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pmexp.yaml_text import read

KEYS = st.text("abyn10", min_size=1, max_size=2)
SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=4)
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(KEYS, v, max_size=3))


@given(value=VALUES, flow=st.booleans())
def test_it_reads_what_pyyaml_wrote(value: Any, flow: bool) -> None:
    assert read(yaml.safe_dump(value, default_flow_style=flow)) == value


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "a: &x {p: 1}\nb: {<<: *x, p: 2}\n", "a: {p: 1}\nb: {p: 1}\n"]
)
def test_a_key_may_stand_in_several_mappings(text: str) -> None:
    assert read(text) == yaml.safe_load(text)


def test_a_mapping_may_hold_itself() -> None:
    with_itself = read("&all {again: *all}")
    assert with_itself["again"] is with_itself


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("p: 1\nq: 2\np: 3\n", "'p' is given twice, in lines 1 and 3; keep one of them"),
        ("p:\n  - q: 1\n    q: 1\n", "'q' is given twice, in lines 2 and 3"),
        ("p: {a: 1, 'a': 2}", "'a' is given twice, in lines 1 and 1"),
        ("1: a\n1: b\n", "'1' is given twice, in lines 1 and 2"),
        ("x: {<<: {a: 1}, b: 1, b: 2}", "'b' is given twice"),
    ],
)
def test_a_key_given_twice_is_refused_with_its_lines(text: str, said: str) -> None:
    with pytest.raises(yaml.YAMLError) as refused:
        read(text)
    assert str(refused.value).startswith(said) and "\n" not in str(refused.value)
