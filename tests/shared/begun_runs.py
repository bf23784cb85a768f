"""Folders of runs that have begun, as a configuration names them, for tests of what reads them."""

import json
import os
import time
from pathlib import Path

import yaml

from composed import config
from pmexp.config import RunConfig
from pmexp.run_folder.folder import RunFolder


def begun(runs_dir: Path, seed: int) -> tuple[RunConfig, RunFolder]:
    """A run of the experiment "all", and its folder with a configuration and an owner that is no more."""
    run = config(f"runs_dir={runs_dir}", "name=all", f"seed={seed}", "tracking=off")
    folder = RunFolder(run.folder)
    folder.path.mkdir(parents=True)
    (folder.path / "config.yaml").write_text(yaml.safe_dump(run.to_dict()))
    owner = {"host": os.uname().nodename, "pid": 1, "started": time.time(), "attempt": 1}
    (folder.path / "owner.json").write_text(json.dumps(owner))
    return run, folder
