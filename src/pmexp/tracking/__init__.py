"""Mirrors a run's journal to a tracker. Imports no torch, and mlflow only when one is opened."""

from pmexp.config import RunConfig, Tracker
from pmexp.run_folder.folder import RunFolder
from pmexp.tracking.mirror import Mirror, NoMirror


def open_mirror(config: RunConfig, folder: RunFolder) -> Mirror | NoMirror:
    """Opens the mirror that `tracking.kind` names, for a run that begins or goes on."""
    folder.mirrored.unlink(missing_ok=True)  # a run that goes on is not what MLflow has of it any more
    if config.tracking.kind is Tracker.off:
        return NoMirror()
    return Mirror(config, folder)


__all__ = ["Mirror", "NoMirror", "open_mirror"]
