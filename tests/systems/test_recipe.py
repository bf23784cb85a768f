"""CONTRIBUTING's recipe for a part of the system, followed by somebody who forgets its last step and by one who does not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
PART = '''"""A part that shows that it ran."""

from torch import nn

from pmexp.systems.base import SystemPart


class Planted(SystemPart):
    def prepare(self, module: nn.Module) -> None:
        raise RuntimeError("the planted part ran")
'''
RUN = """
from torch import nn
from pmexp.config import Part, SystemConfig
from pmexp.systems.system import System
System(SystemConfig(name="mine", parts=[Part.planted])).prepare(nn.Linear(1, 1))
"""


def insert(file: Path, before: str, line: str) -> None:
    text = file.read_text()
    assert text.count(before) == 1
    file.write_text(text.replace(before, f"{line}\n{before}"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The sources with a new file in systems/ and its name in config.Part."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")
    root = Path(shutil.copytree(SOURCE, tmp_path / "src", ignore=ignored))
    (root / "pmexp" / "systems" / "planted.py").write_text(PART)
    insert(root / "pmexp" / "config" / "system.py", '    bf16 = "bf16"', '    planted = "planted"')
    return root


def executed(tree: Path) -> str:
    """Runs a system of the part alone, which fails either way; the last line of what it says."""
    command = [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {[str(tree), *sys.path]}\n{RUN}"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(tree)})
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


def test_a_part_without_its_line_stops_everything(tree: Path) -> None:
    assert "nothing stands behind Part.planted of the configuration" in executed(tree)


def test_a_part_with_its_line_runs(tree: Path) -> None:
    system = tree / "pmexp" / "systems" / "system.py"
    insert(system, "from pmexp.systems.ranks import", "from pmexp.systems.planted import Planted")
    insert(system, "    Part.bf16: ", "    Part.planted: Planted(),")
    assert executed(tree) == "RuntimeError: the planted part ran"
