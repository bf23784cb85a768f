"""Finds what a run was begun as before somebody's code changed: it is another run now and starts anew."""

from pathlib import Path
from typing import Any

import yaml

from pmexp.config import RunConfig
from pmexp.run_folder.folder import RunFolder


def begun_with_other_code(config: RunConfig) -> str:
    """Says which unfinished run is this one but for the sources of its own code, if there is one; empty where
    this one has a folder already, so that it goes on in that."""
    if not config.code or config.folder.is_dir():
        return ""
    prefix = config.run_id.rpartition("-")[0]
    mine = _without_code(config.to_dict())
    for folder in sorted(config.folder.parent.glob(f"{prefix}-*")):
        if not RunFolder(folder).is_finished() and _without_code(_configuration(folder)) == mine:
            return (
                f"{folder.name} was begun with other code and stays as it is; this is another run, from its "
                "first step. Put the old code back to go on with that one"
            )
    return ""


def _configuration(folder: Path) -> Any:
    try:
        return yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):  # that run has not begun, or is damaged
        return None


def _without_code(configuration: Any) -> Any:
    if not isinstance(configuration, dict):
        return None
    return {key: value for key, value in configuration.items() if key != "code"}
