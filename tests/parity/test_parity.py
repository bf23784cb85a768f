"""The certificate: equal trainings are called so, and of others the first tensor that differs is named."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pmexp.parity.command import main
from pmexp.systems.engines.base import Engine
from pmexp.training.loop import Training
from pmexp.training.step_plan import StepPlan
from small_runs import TINY_VIT

SHORT = ["steps=3", "train.batch_size=8"]
KEYS = {
    "schema", "verdict", "sentence", "steps", "tensors", "elements", "first_difference", "first_of_kind",
    "tensors_differing", "only_in", "rounding_rule", "a", "b", "weights_before", "inputs", "command", "time",
    "environment",
}  # fmt: skip


class Certify:
    """`python -m pmexp.parity` of a tiny ViT in this process."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capture = folder, capture

    def __call__(self, *arguments: str, model: list[str] = TINY_VIT) -> tuple[int, str, str]:
        self.capture.readouterr()
        code = main([*model, *SHORT, f"out={self.folder}", *arguments])
        return code, *self.capture.readouterr()

    @property
    def told(self) -> dict[str, Any]:
        certificate: dict[str, Any] = json.loads((self.folder / "certificate.json").read_text())
        return certificate


@pytest.fixture
def certify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Certify:
    return Certify(tmp_path / "certificate", capsys)


def test_equal_trainings_have_a_certificate_of_it(certify: Certify) -> None:
    code, out, _ = certify()
    told = certify.told
    assert code == 0 and told.keys() == KEYS and told["schema"] == 1
    assert told["verdict"] == "equal" and told["first_difference"] is None
    assert told["sentence"] == f"equal, bit for bit, over 3 steps, {told['tensors']} tensors"
    assert out.startswith(f"baseline and pm-drop-same-masks: {told['sentence']}\n")
    assert told["a"]["losses"] == told["b"]["losses"] and len(set(told["a"]["losses"])) == 3
    assert told["weights_before"] != told["a"]["weights_after"] == told["b"]["weights_after"]
    assert told["b"]["replacement"]["left"] == {} and told["b"]["replacement"]["modules"]
    assert told["environment"]["version_torch"] and told["inputs"]["data"] == "scikit-learn"
    page = (certify.folder / "certificate.md").read_text()
    assert page.startswith("# baseline and pm-drop-same-masks: equal\n") and told["sentence"] in page


def test_somebodys_right_dropout_is_certified(certify: Certify) -> None:
    assert certify("b=planted_dropouts.Right")[0] == 0
    told = certify.told
    assert told["b"]["replacement"]["by"] == "Right" and told["b"]["run_id"].startswith("Right-s0-")


@pytest.mark.parametrize(
    ("name", "step", "kind", "layer", "tensor", "differing"),
    [
        ("Scaled", 1, "forward", "vit.embeddings.dropout", "output", None),
        ("OneMore", 2, "forward", "vit.layers.0.dropout", "output", 1),
        ("WrongBackward", 1, "backward", "vit.layers.0.mlp.fc2", "output", None),
    ],
)
def test_a_planted_fault_is_named_and_not_explained_by_rounding(
    name: str, step: int, kind: str, layer: str, tensor: str, differing: int | None, certify: Certify
) -> None:
    code, out, _ = certify(f"b=planted_dropouts.{name}")
    first = certify.told["first_difference"]
    assert code == 1 and certify.told["verdict"] == "different" and certify.told["steps"] == step
    assert (first["step"], first["kind"], first["layer"], first["tensor"]) == (step, kind, layer, tensor)
    assert first["dtype"] == "float32" and first["rounding"]["explained"] is False
    if differing:
        assert first["differing"] == first["dropped_otherwise"] == differing and first["b"] == 0.0
    else:
        assert 4 <= first["units"] <= 17  # 2^-20 of a number is 8 to 16 units of 2^-23
    assert f"different in step {step}, {kind}: " in out and "rounding does not explain it" in out
    kinds = ["forward", "backward", "gradient", "update"]
    if name == "OneMore":  # it adds a patch in the last layer, on which no loss depends
        assert list(certify.told["first_of_kind"]) == ["forward"]
    else:
        assert list(certify.told["first_of_kind"]) == kinds[kinds.index(kind) :]


def test_rounding_explains_another_way_to_compute_the_same(certify: Certify) -> None:
    """Tempo's GELU has another formula for its derivative."""
    assert certify("b=baseline", "b.system=tempo")[0] == 1
    first = certify.told["first_difference"]
    assert first["kind"] == "backward" and first["rounding"]["explained"] is True
    rounding = first["rounding"]
    assert 0 < rounding["b_error"] <= rounding["allowed"] < 3 * rounding["a_error"]


def test_other_masks_are_no_rounding(certify: Certify) -> None:
    code, out, _ = certify("b=pm-drop")
    first = certify.told["first_difference"]
    assert code == 1 and first["layer"] == "vit.embeddings.dropout" and "zero on one side alone" in out
    assert first["dropped_otherwise"] == first["differing"] and first["rounding"]["explained"] is False


def test_a_coarser_dtype_explains_its_own_rounding(certify: Certify) -> None:
    assert certify("b=baseline", "b.system=bf16")[0] == 1
    first = certify.told["first_difference"]
    assert first["dtype"] == "float32 and bfloat16" and first["rounding"]["explained"] is True


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["variant.p=0.0"], "a=baseline: draws no random number in 3 steps, so no dropout is active"),
        (["a=planted_dropouts.Constant", "b=planted_dropouts.Constant", "train.lr=1e-30"], "the loss is"),
        (["train.lr=1e20"], "numbers that are not finite prove nothing"),
    ],
)
def test_a_dead_training_is_refused(
    arguments: list[str], said: str, certify: Certify, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second has the same batch in each step, without which not even its loss would be flat."""
    rows = Training._batch_rows
    if said == "the loss is":
        monkeypatch.setattr(Training, "_batch_rows", lambda training, index: rows(training, 0))
    code, out, err = certify(*arguments)
    assert code == 2 and out == "" and said in err and err.count("\n") == 1
    assert not certify.folder.exists()


def test_a_training_without_a_gradient_is_refused(certify: Certify, monkeypatch: pytest.MonkeyPatch) -> None:
    backward = Engine.backward
    monkeypatch.setattr(Engine, "backward", lambda engine, loss: backward(engine, loss * 0))
    code, _, err = certify()
    assert code == 2 and "a=baseline: the gradient is zero in step 1" in err


def test_a_training_whose_weights_stay_is_refused(certify: Certify, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StepPlan, "lr_factor", lambda plan, step: 0.0)
    code, _, err = certify()
    assert code == 2 and "a=baseline: no weight has moved in 3 steps" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["a=stock"],
            "a=stock: is a dropout and no variant; variants with it are baseline, baseline-other-masks",
        ),
        (["b=foo"], "b=foo: is not an option; allowed are 2bit"),
        (["a=no_such.Dropout"], "a=no_such.Dropout: there is no module no_such in the working folder"),
        (["b=planted_dropouts.Failing"], "fails in step 1 of this training (RuntimeError: no such mask)"),
        (["b=planted_dropouts.Leaving"], "of this training (SystemExit: 0)"),
        (["steps=1"], "steps: '1' is no number of steps; allowed are 2, 3, ..."),
        (["steps=2000"], "steps: 2000 exceeds the 1610 of this training; choose fewer"),
        (["variant=pm-drop"], "variant=pm-drop: what is compared is said by a= and b="),
        (["seed=0,1"], "seed=0,1: several values are a sweep; give one at a time"),
        (["b.seed=1"], "seed: is 0 in a and 1 in b"),
        (["a=."], "a=.: is not an option; allowed are 2bit"),
        (["b=.Dropout"], "b=.Dropout: is not an option"),
        (["b={p: 0.3}"], "b={p: 0.3}: is no name of a variant; write one, or a class as package.MyDropout"),
        (["config_dir=/nope"], "config_dir: /nope is no folder; name one with options of your own"),
        (["a.variant=x"], "a.variant=x: what is compared is said by a= and b="),
        (["a.trian.lr=3"], "a.trian.lr is not a key; did you mean train.lr?"),
        (["a.train.lr=abc"], "a.train.lr=abc: 'abc' is no number"),
        (["tracking=mlflow"], "tracking=mlflow: has no effect, since steps are compared"),
        (["b.measure.profile=true"], "b.measure.profile=true: has no effect"),
        (["train.log_every=2"], "train.log_every=2: has no effect"),
        (["b.nonsense=1"], "nonsense is not a key"),
        (["a.variant.bits=2"], "a.variant.bits=2: has no effect"),
        (["system=ddp", "system.processes=2"], "system.processes: steps are compared in one process"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], said: str, certify: Certify) -> None:
    given = [each for each in SHORT if each.partition("=")[0] not in " ".join(arguments)]
    certify.capture.readouterr()
    code = main([*TINY_VIT, *given, *arguments])
    out, err = certify.capture.readouterr()
    assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize("name", ["Hungry", "HungryInPython", "HungryOnCuda"])
def test_too_little_memory_is_one_line_and_the_machines_fault(name: str, certify: Certify) -> None:
    code, out, err = certify(f"b=planted_dropouts.{name}")
    assert code == 3 and out == "" and err.count("\n") == 1
    assert err.startswith("error: memory did not suffice for both trainings side by side (")
    assert not certify.folder.exists()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("planted_dropouts.Nothing", "planted_dropouts has no Nothing"),
        ("planted_dropouts.NoDropout", "is no subclass of torch.nn.Dropout"),
        ("planted_dropouts.Right.forward", "planted_dropouts.Right cannot be imported"),
        (
            "planted_dropouts.OtherArguments",
            "too many positional arguments; it is OtherArguments(rate: float)",
        ),
        ("broken_here.Dropout", "broken_here cannot be imported (ZeroDivisionError: division by zero)"),
        ("ends_here.Dropout", "ends_here cannot be imported (SystemExit: 3)"),
    ],
)
def test_what_is_no_dropout_is_one_line(
    path: str, said: str, certify: Certify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_here.py").write_text("1 / 0\n")
    (tmp_path / "ends_here.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    code, out, err = certify(f"b={path}")
    assert code == 2 and not out and err.startswith(f"error: b={path}: ") and said in err
    assert err.count("\n") == 1


def test_a_class_of_the_working_folder_is_found(
    certify: Certify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_mine.py").write_text("import torch\nclass Mine(torch.nn.Dropout): pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert certify("b=of_mine.Mine")[0] == 0
    assert certify.told["b"]["replacement"]["by"] == "Mine"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "python -m pmexp.parity" in capsys.readouterr().out


def test_each_side_computes_by_its_own_arithmetic(certify: Certify, monkeypatch: pytest.MonkeyPatch) -> None:
    """The precision of products is the process's, which both sides share."""
    step, seen = Training._step, []

    def seeing(training: Training, index: int) -> Any:
        seen.append((training.system.config.matmul.value, torch.get_float32_matmul_precision()))
        return step(training, index)

    monkeypatch.setattr(Training, "_step", seeing)
    try:
        assert certify("b.system.matmul=high")[0] == 0
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == [("highest", "highest"), ("high", "high")] * 3
