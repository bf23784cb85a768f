"""What the commands do, from Python."""

from pathlib import Path

import pytest

from pmexp import api
from pmexp.errors import UserError
from small_runs import TINY_VIT

SHORT = [*TINY_VIT, "train.max_steps=3", "train.select=last", "train.batch_size=16", "tracking=off"]


def test_runs_are_composed_executed_and_loaded_as_a_frame(tmp_path: Path) -> None:
    place = f"runs_dir={tmp_path}"
    summaries = {
        variant: api.run(api.compose(*SHORT, place, f"variant={variant}", "train.lr=1e-3"))
        for variant in ("baseline", "pm-drop")
    }
    frame = api.load_runs(runs_dir=tmp_path)
    assert sorted(frame.index) == sorted(summary["run_id"] for summary in summaries.values())
    by_variant = frame.set_index("variant")
    assert list(by_variant["state"]) == ["finished"] * 2 and set(frame["train.lr"]) == {1e-3}
    for variant, summary in summaries.items():
        assert by_variant.loc[variant, "memory/mask_bytes"] == summary["metrics"]["memory/mask_bytes"]
    assert api.run(api.compose(*SHORT, place, "variant=pm-drop", "train.lr=1e-3")) == summaries["pm-drop"]


def test_parity_and_fit_answer_as_their_commands_do() -> None:
    told = api.parity("baseline", "pm-drop", *TINY_VIT, "train.batch_size=8", steps=2)
    assert told["verdict"] == "different" and told["first_difference"]["step"] == 1
    answered = api.fit("what=batch", "budget=1GiB", "model=tinybert", "dataset=reuters-r8", "variant=pm-drop")
    assert answered["fits"] and answered["largest"] > 32 and answered["by_category"]["masks"] > 0


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^train\.lrr is not a key; did you mean train\.lr"):
        api.compose("train.lrr=1")
    with pytest.raises(UserError, match=r"^no experiment 'none'"):
        api.load_runs("none", tmp_path)
    with pytest.raises(UserError, match=r"^b=nothing: is neither a variant"):
        api.parity("baseline", "nothing")
