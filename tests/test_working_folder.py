"""A file of the working folder hides no module of Python's own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pmexp.working_folder import search_here


@pytest.mark.parametrize("module", [["pmexp.train"], ["pmexp", "train"]])
def test_python_m_works_beside_files_named_like_its_own_modules(tmp_path: Path, module: list[str]) -> None:
    for name in ("json", "random", "logging", "queue"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('it was taken for another')\n")
    command = [sys.executable, "-m", *module, "--cfg", "job"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("name: default\n"), done.stderr


def test_the_working_folder_comes_before_what_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = os.path.dirname(os.__file__)
    monkeypatch.setattr(sys, "path", ["/script", "/python.zip", own, f"{own}/lib-dynload", "/site-packages"])
    monkeypatch.chdir(tmp_path)
    search_here()
    assert sys.path == ["/script", "/python.zip", own, f"{own}/lib-dynload", str(tmp_path), "/site-packages"]
    search_here()
    assert sys.path.count(str(tmp_path)) == 1
