"""Says before anything is built whether files can be written in a place, and in one line why not."""

import errno
import os
import tempfile
from pathlib import Path

from pmexp.errors import MachineError, UserError

_ROOM_BYTES = 2**16  # the least that a run or a report writes
_FULL = (errno.ENOSPC, errno.EDQUOT)
_OF_THE_PLACE = (  # what stays so until another place is named
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST,
    errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EOPNOTSUPP, errno.ENXIO,
)  # fmt: skip


def refuse_unusable(folder: Path, key: str) -> None:
    """Raises UserError, with `key` in front, where `folder` is no folder or nothing can be written there, and
    MachineError where its disk is full. It need not exist yet; nothing is left behind."""
    try:
        with tempfile.TemporaryFile(dir=_nearest(folder)) as probe:
            probe.write(bytes(_ROOM_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise unusable(folder, key, error) from None


def unusable(place: Path, key: str, error: OSError) -> UserError | MachineError:
    """Returns an error of one line for an OSError that writing in `place` met."""
    why = error.strerror or str(error)
    if error.errno in _FULL:
        return MachineError(f"{key}: there is no room in {place} ({why}); make some and run the same again")
    if error.errno in _OF_THE_PLACE:
        return UserError(f"{key}: nothing can be written in {place} ({why}); name another place")
    return MachineError(
        f"{key}: {place} cannot be written ({why}); see to the machine and run the same again"
    )


def _nearest(folder: Path) -> Path:
    """The folder itself, or the one above it that is there and would hold it."""
    for place in (folder, *folder.parents):
        try:
            os.stat(place)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{place} is no folder")
        return place
    raise FileNotFoundError(errno.ENOENT, "no folder above it is there")
