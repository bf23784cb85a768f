"""Mirrors a run's journal to a tracker. Imports no torch, and mlflow only when one is opened."""

import sys

from pmexp.config import RunConfig, Tracker
from pmexp.run_folder.folder import RunFolder
from pmexp.tracking.beside import MirrorBeside
from pmexp.tracking.mirror import Mirror, NoMirror


def open_mirror(config: RunConfig, folder: RunFolder) -> Mirror | MirrorBeside | NoMirror:
    """Opens the mirror that `tracking.kind` names, for a run that begins or goes on. It is a thread where
    mlflow is imported already, as in the workers of a sweep, and else a process, which training does not
    wait for."""
    folder.mirrored.unlink(missing_ok=True)  # a run that goes on is not what MLflow has of it any more
    if config.tracking.kind is Tracker.off:
        return NoMirror()
    return (Mirror if "mlflow" in sys.modules else MirrorBeside)(config, folder)


__all__ = ["Mirror", "MirrorBeside", "NoMirror", "open_mirror"]
