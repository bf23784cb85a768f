"""What the commands do, from Python."""

from collections.abc import Callable
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
    with pytest.raises(UserError, match=r"^b=nothing: is not an option"):
        api.parity("baseline", "nothing")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: api.compose(["variant=pm-drop"]), "compose: a list is no override; give each by itself, as in compose("),
        (lambda: api.compose("seed=1", 3), "compose: an int is no override; give each by itself"),
        (lambda: api.fit(["what=batch"]), "fit: a list is no override; give each by itself, as in fit("),
        (lambda: api.parity("baseline", "pm-drop", ["seed=1"]), "parity: a list is no override; give each by itself"),
        (lambda: api.load_runs(3), "load_runs: an int is no name of an experiment; give a text, as in 'default'"),
        (lambda: api.load_runs("x", 3), "load_runs: an int is no folder of runs; give runs_dir as in 'runs'"),
        (lambda: api.run("variant=pm-drop"), "run: a str is no configuration; give what compose() returns"),
        (lambda: api.compose("variant=baseline,pm-drop"), "variant=baseline,pm-drop: several values are a sweep; give one at a time"),
        (lambda: api.compose("dataset.text_columns=a,b"), "dataset.text_columns=a,b: several values are a sweep; give one at a time, or write 'dataset.text_columns=[a,b]' for a list"),
        (lambda: api.compose("experiment=exp-1-main-perf"), "experiment=exp-1-main-perf: is a sweep of 60 runs; choose "),
        (lambda: api.compose("share_training=true"), "share_training: is about the runs of a sweep; leave it out"),
        (lambda: api.compose("hydra/launcher=local"), "hydra/launcher=local: launchers execute sweeps; leave it out"),
    ],
)  # fmt: skip
def test_what_python_cannot_take_says_what_to_give(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError) as error:
        call()
    said = str(error.value)
    assert said.startswith(message) and "\n" not in said and "-m" not in said.split()
