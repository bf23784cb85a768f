"""`pmexp init FOLDER` writes a study of one's own that runs: a dropout, its test, a table and a claim."""

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from pmexp.command_line import Command, Given, Key
from pmexp.errors import UserError
from pmexp.run_folder.place import refuse_unusable

COMMAND = Command(
    "pmexp.cli.init",
    "writes a study of your own to begin with: a dropout, its test, a table, a claim, an experiment",
    (Key("folder", "where it is written; it must not be there yet, or be empty"),),
    word="folder",
)
_MADE_BY_RUNNING = ("__pycache__", "runs", "reports", ".pytest_cache")  # where somebody ran it in place


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 bad input, 3 the machine failed."""
    return COMMAND.run(arguments, _write)


def study_folder() -> Path:
    """The files: beside this package in an installed one, in examples/ of a source tree."""
    installed = Path(__file__).parents[1] / "own_study"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "examples" / "own-study"


def study_files() -> list[Path]:
    """The files of the study, without what running it has made beside them."""
    top = study_folder()
    files = (file for file in sorted(top.rglob("*")) if file.is_file())
    return [file for file in files if not {*file.relative_to(top).parts} & {*_MADE_BY_RUNNING}]


def _write(given: Given) -> None:
    folder = given.path("folder")
    if folder is None:
        raise UserError("folder: is missing; write pmexp init my-study")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"folder: {folder} is there already; name a new one")
    refuse_unusable(folder, "folder")
    was_there = folder.exists()
    try:
        for file in study_files():
            copy = folder / file.relative_to(study_folder())
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    except BaseException:
        if not was_there:  # half a study is none
            shutil.rmtree(folder, ignore_errors=True)
        raise
    print(f"{folder}/README.md says what is what; begin with")
    print(f"  cd {shlex.quote(str(folder))}\n  pmexp sweep --config-dir conf experiment=own-study")


if __name__ == "__main__":
    sys.exit(main())
