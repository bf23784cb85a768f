"""How wide the columns of MLflow's table are: what tells runs apart is read whole."""

import json
from typing import Any

from pmexp.tracking.view import view

CODE = "code.variant.apply"


def widths(*differing: dict[str, Any]) -> dict[str, int]:
    state: dict[str, Any] = json.loads(json.loads(view(differing))["state"])
    told: dict[str, int] = state["columnWidths"]
    return told


def test_a_column_is_as_wide_as_its_longest_value() -> None:
    digest, cut = "mylosses of a folder, sha256 72edb0aef32e of 1 file", 7 * 64 + 24
    told = widths({CODE: digest, "train.lr": 0.001}, {CODE: "sha256 0 of 1 file", "dataset.path": "/" * 99})
    assert told[f"params.`{CODE}`"] == 7 * len(digest) + 24
    assert told["params.`train.lr`"] == 80 and told["params.`dataset.path`"] == cut
    assert list(told)[-1] == f"params.`{CODE}`"  # what was measured is seen first
    assert told["tags.`variant`"] >= 7 * len("baseline-other-masks")
