"""CONTRIBUTING's recipe for a part of the system, followed by somebody who forgets its last step and by one who does not."""

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
# Each tree is a fork's, as the packages that pmexp imports take seconds to load.
RUN = """
import os, transformers.modeling_utils
from torch import nn
for tree in sys.argv[1:]:
    if os.fork() == 0:
        sys.path.insert(0, tree)
        try:
            from pmexp.config import Part, SystemConfig
            from pmexp.systems.system import System
            System(SystemConfig(name="mine", parts=[Part.planted])).prepare(nn.Linear(1, 1))
        except Exception as error:
            print(f"{type(error).__name__}: {error}", flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""


def insert(file: Path, before: str, line: str) -> None:
    text = file.read_text()
    assert text.count(before) == 1
    file.write_text(text.replace(before, f"{line}\n{before}"))


def planted(root: Path) -> Path:
    """The sources with a new file in systems/ and its name in config.Part."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")
    shutil.copytree(SOURCE, root, ignore=ignored)
    (root / "pmexp" / "systems" / "planted.py").write_text(PART)
    insert(root / "pmexp" / "config" / "system.py", '    bf16 = "bf16"', '    planted = "planted"')
    return root


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """How a system of the part alone ends without its line in the table of parts, and with it."""
    folder = tmp_path_factory.mktemp("trees")
    without, complete = planted(folder / "without"), planted(folder / "complete")
    system = complete / "pmexp" / "systems" / "system.py"
    insert(system, "from pmexp.systems.ranks import", "from pmexp.systems.planted import Planted")
    insert(system, "    Part.bf16: ", "    Part.planted: Planted(),")
    command = [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path}\n{RUN}"]
    done = subprocess.run([*command, str(without), str(complete)], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_part_without_its_line_stops_everything(ends: list[str]) -> None:
    assert "nothing stands behind Part.planted of the configuration" in ends[0]


def test_a_part_with_its_line_runs(ends: list[str]) -> None:
    assert ends[1:] == ["RuntimeError: the planted part ran"]
