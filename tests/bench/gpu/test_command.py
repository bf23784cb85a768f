"""Keys in, files and an exit code out: what is wrong with a key or a machine is one line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pmexp.bench.gpu import command
from pmexp.bench.gpu.command import main
from pmexp.bench.gpu.plan import STAGES, TOTAL_SECONDS

ROOT = Path(__file__).parents[3]
_STAGES = ", ".join(stage.name for stage in STAGES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["steps=3"],
            "steps=3: steps is not a key; did you mean stages? allowed are out, seconds, stages, size, device",
        ),
        (["seconds=5"], "seconds: '5' is no number of seconds; allowed are 20 to 86400"),
        (["seconds=1e3"], "seconds: '1e3' is no number of seconds; allowed are 20 to 86400"),
        (["size=large"], "size: 'large' is unknown; allowed are full, tiny"),
        (["device=tpu"], "device: 'tpu' is unknown; did you mean cpu? allowed are cuda, cpu"),
        (["device=cpu"], "device: cpu is there to try the code; add size=tiny"),
        (["stages=memory,all"], f"stages: 'all' is none; allowed are all, or some of {_STAGES}"),
        (
            ["out=/dev/null/gpu.md"],
            "out: nothing can be written in /dev/null (/dev/null is no folder); name another place",
        ),
        ([], "device: this command needs a CUDA device, and torch finds none here"),
    ],
)
def test_a_wrong_key_or_machine_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(ROOT)
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_a_python_without_the_packages_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "_NEEDED", ("torch", "no_such_package"))
    assert main([f"out={tmp_path / 'gpu.md'}"]) == 2
    said = f"error: no_such_package: not installed for {sys.executable}; this command needs them\n"
    assert capsys.readouterr().err == said


def test_page_and_record_are_written_and_a_failure_is_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = "done"

    def executed(
        record: dict[str, Any], stages: Any, device: str, size: str, budget: Any, write: Any
    ) -> None:
        lists: dict[str, Any] = {"checks": [], "notes": [], "failed": [], "left_out": []}
        (stage,) = stages
        record["stages"] = [{"name": stage.name, "title": stage.title, "ended": ended, "tables": {}, **lists}]
        write(record)

    monkeypatch.setattr(command, "execute", executed)
    out = tmp_path / "gpu.md"
    arguments = ["device=cpu", "size=tiny", "stages=memory", f"out={out}"]
    assert main(arguments) == 0 and f"Ended: {ended}." in out.read_text()
    record = json.loads(out.with_suffix(".json").read_text())
    assert (record["claims"], record["seconds"], record["size"]) == ([], TOTAL_SECONDS, "tiny")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu.json", "gpu.md"]
    ended = "ended by signal 11"
    capsys.readouterr()
    assert main(arguments) == 1
    assert capsys.readouterr().err == "failed: memory: ended by signal 11\n"


_MISSING = (
    *("hydra", "omegaconf", "mlflow", "datasets", "pandas", "scipy", "sklearn", "statsmodels", "matplotlib"),
    *("sqlalchemy", "pyarrow", "rich", "PIL", "submitit", "kornia", "deepspeed", "accelerate", "peft"),
    "orjson",
)


@pytest.mark.slow
def test_it_needs_torch_transformers_triton_and_numpy_alone() -> None:
    modules = ", ".join(["pmexp.bench.gpu.command", *(stage.module for stage in STAGES)])
    code = f"import sys; sys.modules.update(dict.fromkeys({_MISSING!r})); import {modules}"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
