"""Mirrors a run's journal to trackers. Imports no torch, and a tracker's package only when one is opened."""

import sys

from pmexp.config import RunConfig
from pmexp.run_folder.folder import RunFolder
from pmexp.tracking.beside import MirrorBeside
from pmexp.tracking.mirror import Mirror, NoMirror
from pmexp.tracking.trackers import TRACKERS, check_installed


def open_mirror(config: RunConfig, folder: RunFolder) -> Mirror | MirrorBeside | NoMirror:
    """Opens the mirror to the trackers of `tracking`, for a run that begins or goes on. It is threads where
    all packages that the trackers need are imported already, as mlflow is in the workers of a sweep, and else
    a process, which training does not wait for."""
    folder.mirrored.unlink(missing_ok=True)  # a run that goes on is not what trackers have of it any more
    if not config.tracking.trackers:
        return NoMirror()
    packages = {TRACKERS[name].package for name in config.tracking.trackers} - {None}
    return (Mirror if packages <= sys.modules.keys() else MirrorBeside)(config, folder)


__all__ = ["Mirror", "MirrorBeside", "NoMirror", "check_installed", "open_mirror"]
