"""Says before the work whether its result can be written where a key such as out= wants it, and writes it.

One rule for all commands: a folder that is missing is made, once there is something to write; a file that is
there is replaced, whole or not at all; a name that ends otherwise than what is written is refused.
"""

from pathlib import Path

from pmexp.errors import UserError
from pmexp.run_folder.files import write_atomically

_OF_FILES = (".csv", ".html", ".json", ".md", ".pdf", ".png")  # how no folder of results is called


def check_file(file: Path, key: str, extension: str) -> None:
    """Raises UserError, with `key` in front, where the file has another extension or cannot be written, and
    MachineError where the disk is full."""
    from pmexp.run_folder.place import refuse_unusable, unusable  # tempfile behind it slows every command

    if file.suffix != extension:
        raise UserError(f"{key}: {file} is no name for what is written; name a file with {extension}")
    try:
        if file.exists() and not file.is_file():
            raise UserError(f"{key}: {file} is there and no file; name another")
    except OSError as error:  # its name is too long
        raise unusable(file, key, error) from None
    refuse_unusable(file.absolute().parent, key)


def check_folder(folder: Path, key: str) -> None:
    """Raises UserError, with `key` in front, where files cannot be written in the folder, or it is called
    like a file, and MachineError where the disk is full."""
    from pmexp.run_folder.place import refuse_unusable  # tempfile again

    if folder.suffix in _OF_FILES:
        raise UserError(f"{key}: {folder} is the name of a file, and several are written; name a folder")
    refuse_unusable(folder, key)


def write(file: Path, content: str | bytes) -> None:
    """Writes all of a file, or leaves what was there; its folder is made where it is missing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, content)
