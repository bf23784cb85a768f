"""What fails in somebody's own code while a run trains: one line that names the key and the line, on record."""

import json
import logging
import runpy
from pathlib import Path

import pytest
import torch

from pmexp.errors import UserError
from pmexp.own_code import of_own_code
from small_runs import TINY_VIT, Runs

SHORT = [*TINY_VIT, "train.max_steps=2", "train.select=last", "tracking=off", "dataset=digits"]
KINDS = [
    (["variant.dropout=own_failures.FailsToDrop"], "variant.dropout", "FailsToDrop", "ZeroDivisionError: drop"),
    (["variant.dropout=own_failures.FailsBackward"], "variant.dropout", "FailsBackward", "ZeroDivisionError: back"),
    (["variant.apply=own_failures.loss"], "variant.apply", "loss", "ZeroDivisionError: loss"),
    (["variant.apply=own_failures.optimizer"], "variant.apply", "optimizer", "ZeroDivisionError: step"),
    (["variant.apply=own_failures.forward"], "variant.apply", "forward", "ZeroDivisionError: enter"),
    (["variant=pm-drop", "dataset.metrics=[own_failures.score]"], "dataset.metrics", "score", "ZeroDivisionError: score"),
    (["variant=pm-drop", "system.own_parts=[own_failures.Part]"], "system.own_parts", "Part", "ZeroDivisionError: part"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "key", "name", "said"), KINDS, ids=[kind[2] for kind in KINDS])
def test_the_line_comes_last_and_is_the_runs_failure(
    runs: Runs,
    arguments: list[str],
    key: str,
    name: str,
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = [] if arguments[0].startswith("variant=") else ["variant=own"]
    with caplog.at_level(logging.ERROR):
        code, _, err = runs.train(*SHORT, *own, *arguments)
    line = err.rstrip().splitlines()[-1]
    assert code == 2 and line.startswith(f"error: {key}: own_failures.{name}: fails ({said}, at "), err
    assert "own_failures.py:" in line and line.endswith("; mend it there")
    (folder,) = runs.run_folders()
    assert json.loads(Path(folder, "failure.json").read_text())["error"] == line.removeprefix("error: ")
    assert "own_failures.py" in caplog.text and "Traceback" in caplog.text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("loss_of_none", "loss returns a NoneType; return one number that needs a gradient"),
        ("loss_of_each", "loss returns a tensor of shape (16,); return one number"),
        ("loss_of_no_gradient", "loss returns a tensor that needs no gradient; return one number"),
        ("optimizer_of_none", "optimizer returns a NoneType; return a torch.optim.Optimizer"),
        (
            "optimizer_of_a_closure",
            "optimizer returns a LBFGS, whose step cannot be called alone; return one",
        ),
        ("forward_of_none", "forward returns a NoneType; return a context, such as saved_tensors_hooks"),
    ],
)
def test_what_a_methods_functions_return_is_checked(runs: Runs, name: str, said: str) -> None:
    code, _, err = runs.train(
        *SHORT, "variant=own", f"variant.apply=own_failures.{name}", "train.batch_size=16"
    )
    line = err.rstrip().splitlines()[-1]
    assert code == 2 and line.startswith(f"error: variant.apply: the method's {said}"), err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("forward_of_no_gradient", "variant.apply: the method's forward turns gradients off"),
        ("model_of_no_gradient", "variant.apply, model.builder: the model's logits need no gradient"),
        ("to_meta", "variant.apply: own_failures.to_meta: leaves vit.embeddings.cls_token"),
        ("freezes_all", "variant.apply: no parameter needs a gradient once the method has changed the model"),
    ],
)
def test_what_leaves_nothing_to_train_is_one_line(runs: Runs, name: str, said: str) -> None:
    code, _, err = runs.train(*SHORT, "variant=own", f"variant.apply=own_failures.{name}")
    assert code == 2 and err.rstrip().splitlines()[-1].startswith(f"error: {said}") and "Traceback" not in err


def test_a_metric_that_turns_gradients_off_is_told_from_a_part(runs: Runs) -> None:
    keys = ["train.max_steps=4", "train.evaluate_every=2", "tracking=off", "dataset=digits"]
    code, _, err = runs.train(
        *TINY_VIT, *keys, "variant=pm-drop", "dataset.metrics=[own_failures.ends_gradients]"
    )
    torch.set_grad_enabled(True)
    said = "error: gradients are turned off for the whole process"
    assert code == 2 and err.rstrip().splitlines()[-1].startswith(said), err


def test_a_line_of_a_package_that_lies_elsewhere_is_not_what_has_to_be_mended(tmp_path: Path) -> None:
    """A torch of another environment is seen through PYTHONPATH, or from a venv with the system's packages."""
    package = tmp_path / "elsewhere" / "site-packages" / "theirs.py"
    package.parent.mkdir(parents=True)
    package.write_text("def fails():\n    return 1 / 0\n")
    mine = tmp_path / "of_mine.py"
    mine.write_text("def called(fails):\n    return fails()\n")
    theirs, ours = runpy.run_path(str(package)), runpy.run_path(str(mine))
    said = r"ZeroDivisionError.*of_mine\.py:2\); mend it there"
    with pytest.raises(UserError, match=said), of_own_code("variant.apply", "of_mine.called"):
        ours["called"](theirs["fails"])


def test_a_part_that_turns_gradients_off_is_one_line(runs: Runs) -> None:
    code, _, err = runs.train(*SHORT, "variant=pm-drop", "system.own_parts=[own_failures.NoGradient]")
    said = "error: system.own_parts: the forward of a part turns gradients off"
    assert code == 2 and err.rstrip().splitlines()[-1].startswith(said), err
