"""Reads the configuration that a run left in its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pmexp.config.run import RunConfig, from_dict
from pmexp.errors import UserError, first_line
from pmexp.run_folder.files import opened
from pmexp.run_folder.found import FoundRun
from pmexp.run_folder.plan import PlannedRun


def read_config(file: Path) -> RunConfig:
    """The configuration in ``runs/<name>/<run id>/config.yaml``, as it would be where the file lies now.

    Raises UserError where the file is missing, damaged or another run's.
    """
    run_id, name, runs_dir = file.parent.name, file.parents[1].name, str(file.parents[2])
    try:
        with opened(file) as stream:
            values = yaml.safe_load(stream.read().decode("utf-8"))
        tracking = values["tracking"]
        of_the_folder = f"sqlite:///{values['runs_dir']}/mlflow.db"  # moved with it
        if tracking["uri"] == of_the_folder:
            tracking["uri"] = None
        if (kind := tracking.pop("kind", "off")) != "off":  # earlier versions had one tracker or none
            tracking[kind] = True
        config = from_dict({**values, "name": name, "runs_dir": runs_dir})
    except Exception as error:  # what can be wrong with a file that anybody may have written has no end
        raise UserError(
            f"{file} cannot be used: {first_line(error)}; start the run by its own command"
        ) from None
    if config.run_id != run_id:
        raise UserError(
            f"{file} is of run {config.run_id} by this version of pmexp; remove {file.parent} and start the "
            "run by its own command"
        )
    return config


def settings_of(run: FoundRun | PlannedRun) -> Mapping[str, Any]:
    """The settings of a run (dotted key -> value) by its record, and where it has none by the configuration
    in its folder; {} where that cannot be used."""
    if run.settings or isinstance(run, PlannedRun):
        return run.settings
    file = run.path / "config.yaml"
    if not file.is_file():
        return {}
    try:
        return read_config(file).settings
    except UserError:
        return {}
