"""Entry point: ``python -m pmexp.slurm_resources FOLDER`` writes what SLURM jobs ask for, to be adapted."""

import re
import shlex
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from pmexp.command_line import Command, Given, Key
from pmexp.errors import UserError
from pmexp.run_folder.files import write_atomically
from pmexp.run_folder.place import refuse_unusable

COMMAND = Command(
    "pmexp.slurm_resources",
    "writes the files of what SLURM jobs ask for, one for each part of a system stack, for a site to adapt",
    (Key("folder", "where they are written; it is made where it is missing"),),
    word="folder",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 written, 2 bad input, 3 where nothing can be written there."""
    return COMMAND.run(arguments, _write)


def _write(given: Given) -> None:
    folder = given.path("folder")
    if folder is None:
        raise UserError("folder: name the folder to write, such as folder=site")
    packaged = resources.files("hydra_plugins.pmexp_launchers") / "resources"
    texts = {
        file.name: file.read_text(encoding="utf-8")
        for file in packaged.iterdir()
        if file.name.endswith(".yaml")
    }
    refuse_unusable(folder, "folder")
    _refuse_other_content(folder, texts)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in sorted(texts.items()):
        write_atomically(folder / name, text)
        print(folder / name)
    print(
        f"adapt them, then: pmexp sweep hydra/launcher=slurm {_override('hydra.launcher.resources', folder)}"
    )


def _override(key: str, folder: Path) -> str:
    """The override that names the folder, as a shell and Hydra's language take it."""
    text = str(folder)
    if not re.fullmatch(r"[\w./-]+", text, re.ASCII):
        from hydra.core.override_parser.types import Quote, QuotedString  # which other paths do without

        text = QuotedString(text, Quote.double).with_quotes()
    return shlex.quote(f"{key}={text}")


def _refuse_other_content(folder: Path, texts: dict[str, str]) -> None:
    """Raises UserError where something else would be lost."""
    for name, text in texts.items():
        file = folder / name
        if file.exists() and (not file.is_file() or file.read_bytes() != text.encode()):
            raise UserError(f"folder: {file} is there with other content; name another folder, or remove it")


if __name__ == "__main__":
    sys.exit(main())
