"""What nearly equal mappings keep in common is kept once, and nobody sees that."""

from collections import ChainMap
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pmexp.run_folder.differences import distinct_items
from pmexp_analysis.sources.shared import Shared

VALUES = st.one_of(st.none(), st.booleans(), st.integers(0, 1), st.sampled_from([0.0, 1.0, "1", "a"]))
MAPPINGS = st.lists(st.dictionaries(st.sampled_from("abcd"), VALUES), max_size=8)


@given(MAPPINGS)
def test_what_is_kept_is_what_was_told(told: list[dict[str, Any]]) -> None:
    shared = Shared(dict)
    kept = [shared.of(one) for one in told]
    assert [repr(sorted(dict(one).items())) for one in kept] == [repr(sorted(one.items())) for one in told]
    assert [list(one) for one in kept] == [list(one) for one in told]


@given(MAPPINGS)
def test_every_value_of_every_key_is_met(told: list[dict[str, Any]]) -> None:
    shared = Shared(dict)
    met = set(map(repr, distinct_items(shared.of(one) for one in told)))
    assert met == {repr(item) for one in told for item in one.items()}


def test_equal_mappings_are_one() -> None:
    shared = Shared(dict)
    first, second = shared.of({"lr": 1.0, "seed": 0}), shared.of({"lr": 1.0, "seed": 1})
    assert isinstance(second, ChainMap) and second.maps == [{"seed": 1}, first]
    assert shared.of({"lr": 1.0, "seed": 0}) is first
