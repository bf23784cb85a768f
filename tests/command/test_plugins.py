"""Installed packages add options to the groups of conf/, by an entry point and without being imported."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pmexp.cli.completion import completions
from pmexp.command import composition, plugins
from pmexp.command.compose import compose
from pmexp.command.help_text import help_text
from pmexp.command.schema import options
from pmexp.errors import UserError


class Installed:
    """A folder of packages, each with an entry point for pmexp."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, **files: str) -> None:
        package = self.folder / name
        package.mkdir()
        (package / "__init__.py").write_text("raise RuntimeError('nobody has to import this')\n")
        for option, text in files.items():
            file = package / "conf" / "variant" / f"{option.replace('_', '-')}.yaml"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        info = self.folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[pmexp.plugins]\n{name} = {name}\n")
        _forget()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    _forget()
    yield Installed(tmp_path)
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    plugins.plugin_folders.cache_clear()
    composition._kept.cache_clear()
    composition._plain.cache_clear()
    composition.introduce.cache_clear()


def test_an_option_of_a_plugin_is_chosen_as_pmexps_are(installed: Installed) -> None:
    installed.add("their_drops", two_bytes="name: two-bytes\ndropout: packed\nbits: 4\n")
    run = compose(["variant=two-bytes", "seed=3"])
    assert (run.variant.name, run.variant.bits, run.seed) == ("two-bytes", 4, 3)
    assert "two-bytes" in options("variant") and "two-bytes" in help_text([], composition.OWN, False)
    assert completions("pmexp train variant=two") == ["variant=two-bytes"]
    assert "their_drops" not in sys.modules


def test_an_option_that_pmexp_has_already_is_refused(installed: Installed) -> None:
    installed.add("their_baseline", baseline="name: baseline\ndropout: packed\n")
    with pytest.raises(
        UserError, match=r"baseline\.yaml: would not be read, pmexp has a variant/baseline\.yaml"
    ):
        compose([])


def test_an_option_that_two_plugins_have_is_refused(installed: Installed) -> None:
    installed.add("one_drop", mine="name: mine\ndropout: packed\n")
    installed.add("other_drop", mine="name: mine\ndropout: seeded\n")
    with pytest.raises(UserError, match="another plugin has"):
        compose(["variant=mine"])


def test_a_plugin_without_options_is_named(installed: Installed) -> None:
    installed.add("empty_drop")
    with pytest.raises(UserError, match=r"^the plugin empty_drop \(empty_drop\) has no folder conf"):
        compose([])
