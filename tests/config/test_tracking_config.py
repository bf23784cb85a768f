"""`tracking=`: several trackers at once, and records of versions that had one."""

from pathlib import Path

import pytest
import yaml

from composed import config
from pmexp.command.compose import compose_run
from pmexp.command.explain import explained
from pmexp.config import WandbMode, read_config
from pmexp.errors import UserError


@pytest.mark.parametrize(
    ("typed", "trackers"),
    [
        ([], ("mlflow",)),
        (["tracking=off"], ()),
        (["tracking=csv"], ("csv",)),
        (["tracking=[csv,mlflow]"], ("mlflow", "csv")),
        (["tracking=[tensorboard,wandb]", "tracking.wandb_mode=online"], ("wandb", "tensorboard")),
        (["tracking.csv=true"], ("mlflow", "csv")),
    ],
)
def test_trackers_that_are_chosen(typed: list[str], trackers: tuple[str, ...]) -> None:
    run = config(*typed)
    assert run.tracking.trackers == trackers
    assert run.run_id == config().run_id
    assert (run.tracking.wandb_mode is WandbMode.online) == ("tracking.wandb_mode=online" in typed)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            ["tracking=[csv,off]"],
            "tracking=[csv,off]: off stands alone; leave it out, or choose tracking=off",
        ),
        (["tracking=[csv,cvs]"], "tracking=cvs: is not an option"),
        (
            ["tracking=csv", "tracking.uri=http://host"],
            "tracking.uri=http://host: has no effect, this run is not mirrored to MLflow",
        ),
        (
            ["tracking.wandb_mode=online"],
            "tracking.wandb_mode=online: has no effect, this run is not mirrored to W&B",
        ),
        (["tracking.kind=csv"], "tracking.kind is not a key"),
    ],
)
def test_what_is_refused_is_one_line(typed: list[str], said: str) -> None:
    with pytest.raises(UserError) as refused, explained():
        compose_run(typed)
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(("kind", "trackers"), [("mlflow", ("mlflow",)), ("off", ())])
def test_a_record_of_a_version_that_had_one_tracker(
    kind: str, trackers: tuple[str, ...], tmp_path: Path
) -> None:
    run = config(f"runs_dir={tmp_path}")
    values = run.to_dict()
    values["tracking"] = {"kind": kind, "uri": f"sqlite:///{tmp_path}/mlflow.db", "interval_s": 30.0}
    file = run.folder / "config.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump(values))
    read = read_config(file)
    assert read.tracking.trackers == trackers and read.run_id == run.run_id
