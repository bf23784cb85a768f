"""What is said where a module that `python -m` executes cannot import what it needs."""

import errno

import pytest

from pmexp.command_line import importing

NO_FOLDER = "No usable temporary directory found in ['/tmp', '/var/tmp']"  # as torch's import raises it


def test_imports_that_fail_by_the_machine_end_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, importing():
        raise FileNotFoundError(errno.ENOENT, NO_FOLDER)
    assert ended.value.code == 3
    said = capsys.readouterr().err
    assert NO_FOLDER in said and said.startswith("error: ") and said.count("\n") == 1


def test_imports_that_fail_by_a_fault_of_the_code_show_where() -> None:
    with pytest.raises(FileNotFoundError, match="settings"), importing():
        raise FileNotFoundError(errno.ENOENT, "settings.json")
