"""What a program imports at its start is imported without garbage collections, and set apart from later ones."""

import gc
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hydra_plugins.pmexp_launchers import processes
from pmexp import train
from pmexp.lasting_imports import lasting_imports


@pytest.fixture(autouse=True)
def nothing_set_apart(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the calls of gc.freeze, which would keep the garbage of other tests."""
    calls: list[int] = []
    monkeypatch.setattr(gc, "freeze", lambda: calls.append(1))
    return calls


def test_an_import_is_set_apart_and_disturbed_by_no_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_set_apart: list[int]
) -> None:
    (tmp_path / "imported_for_good.py").write_text("import gc\nCOLLECTS = gc.isenabled()\n")
    monkeypatch.syspath_prepend(tmp_path)
    with lasting_imports():
        import imported_for_good  # type: ignore[import-not-found]
    assert not imported_for_good.COLLECTS and gc.isenabled() and nothing_set_apart == [1]
    with lasting_imports():  # an import that was made already makes nothing that lasts
        import imported_for_good
    assert nothing_set_apart == [1]


def test_collections_go_on_after_a_failed_import_and_stay_off_where_they_were() -> None:
    with pytest.raises(ImportError), lasting_imports():
        import there_is_no_such_module  # type: ignore[import-not-found]  # noqa: F401
    assert gc.isenabled()
    gc.disable()
    try:
        with lasting_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


class Watched(ModuleType):
    """A module in the place of a slow one; it notes whether collections were off when a name of it was taken."""

    def __init__(self, name: str, off: list[bool]) -> None:
        super().__init__(name)
        self.__dict__["_off"] = off

    def __getattr__(self, name: str) -> Any:
        if name == "run":
            self._off.append(not gc.isenabled())
        return lambda *_: None


def test_a_run_imports_torch_so(monkeypatch: pytest.MonkeyPatch) -> None:
    off: list[bool] = []
    monkeypatch.setitem(sys.modules, "pmexp.training.run", Watched("pmexp.training.run", off))
    monkeypatch.setattr(train, "result_line", lambda config: "")  # There is no run that could leave one.
    monkeypatch.setattr(sys, "argv", ["train"])
    assert train.main() == 0
    assert off and all(off)


def test_the_parent_of_workers_imports_so(monkeypatch: pytest.MonkeyPatch) -> None:
    off: dict[str, bool] = {}
    monkeypatch.setattr(importlib, "import_module", lambda name: off.update({name: not gc.isenabled()}))
    for name in processes._PRELOAD:
        monkeypatch.delitem(sys.modules, name, raising=False)
        __import__(name)
    assert {"pmexp.training.run", "mlflow"} <= off.keys() and all(off.values())


def test_the_method_is_imported_without_collections(tmp_path: Path) -> None:
    script = tmp_path / "imports.py"
    script.write_text(
        "import gc, torch\n"
        "gc.collect()\n"
        "phases = []\n"
        "gc.callbacks.append(lambda phase, info: phases.append(phase))\n"
        "import pmexp.packed_dropout\n"
        "print(phases.count('start'), gc.isenabled())\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout in ("0 True\n", "1 True\n")  # one may come before the block; without it there are nine
