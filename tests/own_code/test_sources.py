"""What identifies code of one's own: its sources, those that it leads to, and the version of its package."""

import ast
import hashlib
import logging
import os
import signal
import sys
import zipfile
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from pmexp.errors import UserError
from pmexp.own_code import called, described, imported, of_own_code, refuse_changed, sources
from pmexp.process import STOP_SIGNALS
from pmexp.training.stop_signals import stop_requests

SOURCES = {
    "study/__init__.py": "from study.inner import deep\n",
    "study/inner/__init__.py": "import beside\n",
    "study/inner/deep.py": "import os, json\nclass Mine: pass\n",
    "study/kernels.cu": "__global__ void f() {}\n",
    "study/data.csv": "1,2\n",
    "study/.hidden/notes.py": "1 / 0\n",
    "beside.py": "from further.on import thing\n",
    "further/on.py": "thing = 1\n",
    "unrelated.py": "x = 1\n",
    "broken.py": "def (\n",
}
LED_TO = ["study/__init__.py", "study/inner/__init__.py", "study/inner/deep.py", "study/kernels.cu"]
LED_TO += ["beside.py", "further/on.py"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in SOURCES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return tmp_path


def test_code_that_sets_up_logging_silences_nothing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("pmexp.of_a_test")
    text = "import logging, logging.config\nlogging.config.dictConfig({'version': 1, 'root': {'handlers': []}})\n"
    (folder / "silent.py").write_text(text + "logging.disable(logging.CRITICAL)\ndef f(): pass\n")
    try:
        imported("k", "silent.f")
        with of_own_code("k", "silent.f"):
            logging.getLogger("pmexp").setLevel(logging.CRITICAL)
            logging.getLogger("pmexp").propagate = False
        log.warning("it is heard")
    finally:
        logging.disable(logging.NOTSET)
        sys.modules.pop("silent", None)
    assert "it is heard" in caplog.text


def test_code_that_sets_handlers_of_stop_signals_leaves_the_runs_own(folder: Path) -> None:
    text = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
    (folder / "handling.py").write_text(f"{text}def f():\n    signal.signal(signal.SIGINT, signal.SIG_IGN)\n")
    try:
        with stop_requests():
            ours = [signal.getsignal(number) for number in STOP_SIGNALS]
            called("k", "handling.f", (), {}, "k")
            assert [signal.getsignal(number) for number in STOP_SIGNALS] == ours
    finally:
        sys.modules.pop("handling", None)


def test_every_place_of_a_namespace_package_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, module in (("one", "first"), ("other", "second")):
        file = tmp_path / place / "spread" / f"{module}.py"
        file.parent.mkdir(parents=True)
        file.write_text("class Mine: pass\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "one"), str(tmp_path / "other"), *sys.path])
    before = described("k", "spread.second.Mine")
    assert before == described("k", "spread.first.Mine")  # the one may import the other
    (tmp_path / "other" / "spread" / "second.py").write_text("class Mine: 'changed'\n")
    assert described("k", "spread.second.Mine") != before


def test_code_that_this_process_has_imported_before_its_change_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "further.on.thing"
    monkeypatch.setattr(sources, "_at_first_run", {})
    refuse_changed({path: described("k", path)})  # a run that ends before its import
    (folder / "further/on.py").write_text("thing = 2\n")
    refuse_changed({path: described("k", path)})
    try:
        assert imported("k", path) == 2
        (folder / "further/on.py").write_text("thing = 3\n")
        with pytest.raises(UserError, match=r"^further\.on\.thing: .* since this process imported it"):
            refuse_changed({path: described("k", path)})
        (folder / "further/on.py").write_text("thing = 2\n")
        refuse_changed({path: described("k", path)})
    finally:
        for name in ("further", "further.on"):
            sys.modules.pop(name, None)


def test_it_says_whose_the_code_is_and_imports_nothing(folder: Path) -> None:
    told = described("variant.dropout", "study.inner.deep.Mine")
    assert told.startswith("study of a folder, sha256 ") and told.endswith(f" of {len(LED_TO)} files")
    assert not {"study", "beside", "further"} & set(sys.modules)


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_what_the_code_leads_to_changes_it_and_nothing_else_does(name: str, folder: Path) -> None:
    before = described("k", "study.Mine")
    (folder / name).write_text(SOURCES[name] + "\n")
    changed = described("k", "study.Mine") != before
    assert changed == (name in LED_TO)
    if changed:
        with pytest.raises(
            UserError, match=r"^study\.Mine: the code has changed since this run was composed"
        ):
            refuse_changed({"study.Mine": before})
    else:
        refuse_changed({"study.Mine": before})


def test_a_sweep_reads_each_source_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    parse = ast.parse
    monkeypatch.setattr(ast, "parse", lambda *given: (parsed.append(given[0]), parse(*given))[1])
    told = {described("k", path) for path in ("study.Mine", "study.inner.deep.Mine") for _ in range(5)}
    assert len(told) == 1 and len(parsed) == len([name for name in LED_TO if name.endswith(".py")])
    (folder / "beside.py").write_text("from further.on import gniht\n")  # as long as before
    assert described("k", "study.Mine") not in told


def test_a_module_that_moves_into_a_package_is_other_code(folder: Path) -> None:
    before = described("k", "unrelated.Mine")
    (folder / "unrelated").mkdir()
    (folder / "unrelated.py").rename(folder / "unrelated" / "__init__.py")
    assert described("k", "unrelated.Mine") != before


def test_an_installed_package_has_its_version(folder: Path) -> None:
    import yaml

    assert described("k", "yaml.SafeLoader").startswith(f"PyYAML {yaml.__version__}, sha256 ")


def test_files_of_a_package_are_read_where_they_are_not_as_installed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    source = sources._source
    monkeypatch.setattr(sources, "_source", lambda file: (read.append(file), source(file))[1])
    place = folder / "site"
    info = place / "theirs-1.0.dist-info"
    (place / "theirs").mkdir(parents=True)
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    lines = ["theirs-1.0.dist-info/METADATA,,", "theirs-1.0.dist-info/RECORD,,"]
    for name in ("__init__", "kept", "edited"):
        (place / "theirs" / f"{name}.py").write_text(f"a = '{name}'\n")
        content = (place / "theirs" / f"{name}.py").read_bytes()
        digest = urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        lines.append(f"theirs/{name}.py,sha256={digest},{len(content)}")
    (info / "RECORD").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(place)
    for cached in (sources._installed, sources._owners):
        cached.cache_clear()
    installed = described("k", "theirs.Mine")
    assert installed.startswith("theirs 1.0, sha256 ") and not read
    monkeypatch.setattr(sources, "_as_installed", lambda owner: {})
    sources._installed.cache_clear()
    assert described("k", "theirs.Mine") == installed and len(read) == 3  # what it is to read them all
    monkeypatch.undo()
    monkeypatch.syspath_prepend(place)
    edited = place / "theirs" / "edited.py"
    edited.write_text("a = 'edietd'\n")
    os.utime(edited, (later := (info / "RECORD").stat().st_mtime + 1, later))
    sources._installed.cache_clear()
    assert described("k", "theirs.Mine") != installed
    sources._installed.cache_clear()
    sources._owners.cache_clear()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("Mine", "k: 'Mine' is no import path; write it as package.module.Name"),
        ("study..Mine", "is no import path"),
        ("study.1.Mine", "is no import path"),
        ("nowhere.Mine", "k: nowhere.Mine: there is no module nowhere in the working folder"),
        ("json.Mine", "json is a module of Python itself, which hides one of yours; give yours another name"),
        ("zipped.Mine", "zipped lies in an archive ("),
        (
            "__main__.Mine",
            "is of the program or notebook itself, which no run can import; put it into a file",
        ),
        ("sys.path", "sys is built into Python; name code that has a source"),
    ],
)
def test_what_cannot_be_found_is_one_line(
    path: str, said: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        archive.writestr("zipped.py", "class Mine: pass\n")
    monkeypatch.syspath_prepend(folder / "all.zip")
    with pytest.raises(UserError) as refused:
        described("k", path)
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("broken.Mine", "broken cannot be imported (SyntaxError: "),
        ("unrelated.Mine", "unrelated has no Mine; name something that is there"),
        ("study.inner.Mine", "study.inner has no Mine"),
        ("study.nothing.Mine", "study.nothing cannot be imported (ModuleNotFoundError: "),
    ],
)
def test_what_cannot_be_imported_is_one_line(path: str, said: str, folder: Path) -> None:
    try:
        with pytest.raises(UserError) as refused:
            imported("k", path)
    finally:
        for name in [
            name for name in sys.modules if name.partition(".")[0] in ("study", "beside", "further")
        ]:
            del sys.modules[name]
    assert said in str(refused.value) and "\n" not in str(refused.value)
