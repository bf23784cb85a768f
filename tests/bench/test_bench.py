"""The benchmarks: no figure without its check, fair pairs, and what is written."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from named_contenders import P, known
from pmexp.bench.command import main
from pmexp.bench.options import COMMANDS, LEVELS, step_options
from pmexp.bench.packing_time import PackingTime
from pmexp.bench.step import steps_of
from pmexp.command.compose import compose
from pmexp.errors import UserError
from pmexp.models import images
from pmexp.packed_dropout import packed_dropout
from pmexp.training import checkpoint
from pmexp.training.prepared import prepare
from pmexp.variants.seeded import seeded_dropout
from small_runs import TINY_VIT

# ---- step


def step(*arguments: str) -> int:
    return main(["level=step", *TINY_VIT, *arguments])


@pytest.mark.slow
def test_step_from_the_command_to_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert step("steps=7", f"out={tmp_path}", "train.batch_size=16", "seed=5") == 0
    record = json.loads((tmp_path / "step.json").read_text())
    assert (record["variant"], record["against"], record["pairs"]) == ("pm-drop", "baseline", 7)
    assert 0 < record["low"] <= record["ratio"] <= record["high"]
    assert len(record["seconds"]) == len(record["against_seconds"]) == 7
    assert record["ratio"] == np.median(np.divide(record["against_seconds"], record["seconds"]))
    assert record["samples_per_s"] == pytest.approx(16 / (record["step_ms"] / 1e3))
    assert record["against_step_ms"] == pytest.approx(1e3 * np.median(record["against_seconds"]))
    assert 0 < record["packing_share"] < 1 and 0 < record["unpacking_share"] < 1
    (row,) = csv.DictReader((tmp_path / "step.csv").read_text().splitlines())
    assert row == {name: str(record[name]) for name in row} and "ratio" in row
    differing = {key for key, value in record["settings"].items() if record["against_settings"][key] != value}
    assert differing == {"variant.name", "variant.dropout"}
    assert record["settings"]["seed"] == 5 and record["environment"]["threads"] == 1
    assert "pm-drop has " in capsys.readouterr().out


@pytest.mark.slow
def test_a_variant_that_packs_nothing_has_no_share(tmp_path: Path) -> None:
    assert step("variant=byte-mask", "steps=1", f"out={tmp_path}") == 0
    record = json.loads((tmp_path / "step.json").read_text())
    assert (record["packing_share"], record["unpacking_share"]) == (0.0, 0.0)


def test_none_is_the_baseline_without_dropout() -> None:
    options = step_options(COMMANDS["step"].read(["level=step", "against=none", *TINY_VIT]))
    variant, against = options.configs
    differing = {key for key, value in variant.settings.items() if against.settings.get(key) != value}
    assert {"variant.name", "variant.dropout", "variant.p"} == differing
    modules = prepare(against).training.module.modules()
    assert {module.p for module in modules if isinstance(module, nn.Dropout)} == {0.0}


def test_a_step_is_a_real_step_of_the_training() -> None:
    training = prepare(compose([*TINY_VIT, "variant=pm-drop"])).training
    take_step = steps_of(training)
    weights = [parameter.detach().clone() for parameter in training.module.parameters()]
    assert take_step() > 0 and take_step() > 0
    assert training.progress.step == 2
    changed = [not torch.equal(a, b) for a, b in zip(weights, training.module.parameters(), strict=True)]
    assert all(changed)


def test_packing_time_sees_what_packs_and_what_unpacks_and_nothing_else() -> None:
    x = torch.randn(100, requires_grad=True)
    with PackingTime() as spent:
        nn.Dropout(P)(x).sum().backward()
        seeded_dropout(x, P).sum().backward()
        packed_dropout(x, P, training=False)
        assert spent.forward == spent.backward == 0
        y = packed_dropout(x, P)
        forward = spent.forward
        assert forward > 0 and spent.backward == 0
        y.sum().backward()
        assert spent.forward == forward and spent.backward > 0


def test_packing_time_changes_no_number() -> None:
    x = torch.randn(33, 7, requires_grad=True)

    def dropped() -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        y = packed_dropout(x, P)
        return y, torch.autograd.grad(y.square().sum(), x)[0]

    plain = dropped()
    with PackingTime():
        timed = dropped()
    assert all(map(torch.equal, plain, timed))


@pytest.mark.parametrize(
    "drop",
    [partial(packed_dropout, p=P, bits=4), partial(packed_dropout, p=P, rng="torch"), known("hooks").drop],
    ids=["4 bits", "torch's masks", "hooks"],
)
def test_packing_time_sees_every_way_to_pack(drop: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(100, requires_grad=True)
    with PackingTime() as spent:
        drop(x).sum().backward()
    assert spent.forward > 0 and spent.backward > 0


# ---- the command


def test_help_is_short_and_imports_no_torch() -> None:
    code = (
        "import sys; from pmexp.bench.command import main; code = main(['--help']);"
        "assert not {'torch', 'transformers', 'matplotlib'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    levels = [f"level={level}" in done.stdout for level in LEVELS]
    assert all(levels) and done.stdout.count("\n") < 75


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "level: is missing; allowed are micro, step, memory, loader, records"),
        (
            ["level=macro"],
            "level: 'macro' is unknown; did you mean micro? allowed are micro, step, memory, loader, records",
        ),
        (
            ["level=micro", "size=3"],
            "size=3: size is not a key; did you mean sizes? allowed are level, sizes",
        ),
        (["level=micro", "quick"], "quick: has no value; write quick=VALUE"),
        (["level=micro", "quick=yes"], "quick: 'yes' is unknown; allowed are true, false"),
        (["level=micro", "sizes=10,3x"], "sizes: '3x' is no shape"),
        (["level=micro", "sizes=0"], "sizes: '0' is no shape"),
        (["level=micro", "dtypes=fp8"], "dtypes: 'fp8' is unknown; allowed are fp32, bf16, fp16, fp64"),
        (
            ["level=micro", "contenders=pm"],
            "contenders: 'pm' is unknown; allowed are nn.Dropout, compiled, byte-mask",
        ),
        (["level=micro", "p=1"], "p: '1' is no probability that drops some elements; allowed is (0, 1)"),
        (["level=micro", "p=half"], "p: 'half' is no probability"),
        (
            ["level=micro", "device=tpu"],
            "device: 'tpu' is unknown; did you mean cpu? allowed are auto, cpu, cuda",
        ),
        (["level=micro", "sizes=3", "out=/proc/nope"], "out: nothing can be written in /proc/nope ("),
        (["level=step", "steps=0"], "steps: '0' is no number of pairs of steps"),
        (["level=step", "variant=foo"], "variant=foo: is not an option; allowed are 2bit"),
        (["level=step", "against=foo"], "against=foo: is not an option; allowed are 2bit"),
        (["level=step", "variant.dropout=mine.Drop"], "variant.dropout: would hold for both sides; give"),
        (["level=step", "+variant.options.k=2"], "variant.options.k: would hold for both sides; give"),
        (["level=step", "variant.p=2"], "variant.p: 2.0 must lie in [0.0, 1.0]"),
        (["level=step", "trian.lr=3"], "did you mean train.lr?"),
        (["level=loader", "workers=some"], "workers: 'some' is no number of workers; allowed are 0, 1"),
        (["level=loader", "batch=0"], "batch: '0' is no whole number; allowed are 1, 2, ..."),
        (["level=loader", "pictures=/proc/sys/net"], "pictures: /proc/sys/net holds no picture"),
        (["level=records", "steps=none"], "steps: 'none' is no number of pairs of steps"),
        (
            ["level=records", *TINY_VIT, "train.max_steps=54"],
            "steps: 125 steps are needed and this training has 54",
        ),
        (["level=step", "foo"], "foo: is no override; write key=value"),
        (["level=step", *TINY_VIT, "train.max_steps=54"], "steps: 40 pairs and 15 steps for warm-up"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and message in err and err.count("\n") == 1
    assert out == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["level=micro", "device=cuda"]) == 2
    assert "device: cuda is not available" in capsys.readouterr().err


def test_early_stopping_is_said() -> None:
    training = prepare(compose([*TINY_VIT, "train.max_steps=1"])).training
    take_step = steps_of(training)
    take_step()
    with pytest.raises(UserError, match="ended the training at step 1"):
        take_step()


def test_what_the_records_of_a_step_cost_is_shown_after_both_checkpoints_were_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["level=records", "steps=3", f"out={tmp_path}", *TINY_VIT]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    record = json.loads((tmp_path / "records.json").read_text())
    assert "journal, a logged step" in out and str(tmp_path / "records.json") in out
    assert 0 < record["journal_ms"] < record["step_ms"] and record["checkpoint_bytes"] > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["records.json"]
    monkeypatch.setattr(checkpoint, "_copied_to_cpu", lambda state: {"training": {"module": {}}})
    assert main(arguments) == 1
    assert "asynchronous checkpoint: differs from the training's state" in capsys.readouterr().err


def test_what_workers_load_is_shown_after_their_batches_were_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["level=loader", "workers=1", "batch=2", "steps=2", "turns=1", "step_ms=1", f"out={tmp_path}"]
    assert main(arguments) == 0
    lines = list(csv.DictReader((tmp_path / "loader.csv").read_text().splitlines()))
    assert [line["workers"] for line in lines] == ["0", "1"] and float(lines[0]["ratio"]) == 1.0
    assert all(
        float(line["pictures_per_s"]) > 0 < float(line["cpu_ms"]) and 0 < float(line["wait_share"]) < 1
        for line in lines
    )
    assert "pillow" in json.loads((tmp_path / "environment.json").read_text())["pictures"]
    assert "batches of 2 pictures are the same bit for bit" in capsys.readouterr().out
    draw = images.rand_augment  # a worker that draws by what was drawn before, not by seed, epoch and row
    mixed = [np.random.default_rng()]
    monkeypatch.setattr(images, "rand_augment", lambda pixels, random: draw(pixels, mixed[0]))
    assert main(arguments) == 1
    assert "differs from the thread's own" in capsys.readouterr().err
