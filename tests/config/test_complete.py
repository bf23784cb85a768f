"""Whatever the configuration names is there."""

from enum import Enum

import pytest

from pmexp.config.complete import complete


class Kind(Enum):
    there = 1
    named_only = 2


def test_a_name_without_anything_behind_it_is_an_error_at_import() -> None:
    with pytest.raises(LookupError, match=r"nothing stands behind Kind\.named_only of the configuration"):
        complete({Kind.there: int}, Kind)
    assert complete({Kind.there: int, Kind.named_only: str}, Kind)[Kind.named_only] is str
