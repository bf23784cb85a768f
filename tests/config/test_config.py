"""Every option composes; the schema, the identity of a run and what null is completed to."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from composed import DEFAULT, config
from pmexp.command.flags import in_small
from pmexp.command.schema import conf_folder
from pmexp.config import SHARDING, Part, RunConfig, TrackingConfig, TrainConfig
from pmexp.errors import UserError


def options(group: str) -> list[str]:
    return sorted(file.stem for file in (conf_folder() / group).glob("*.yaml"))


TEXT = ["model=tinybert", "dataset=reuters-r8"]


@pytest.mark.parametrize("name", options("model"))
def test_every_model_composes(name: str) -> None:
    of = {"vilt-b32": "flickr8k", "vit-b16": "digits", "vit-digits": "digits"}
    dataset = of.get(name, "wmt16-ro-en" if name.startswith(("t5", "bart")) else "mrpc")
    needed = {"auto": ["model.path=folder"], "own": ["model.builder=own_models.build_bag"]}
    run = config("model=" + name, "dataset=" + dataset, *needed.get(name, []))
    assert run.model.name == {"own": "build_bag", "auto": "folder"}.get(name, name)


def test_smoke_is_the_experiment_in_small() -> None:
    arguments = ["seed=1", "experiment=exp-1-main-perf", "smoke=true"]
    assert in_small(arguments) == ["seed=1", "experiment=smoke/exp-1-main-perf"]
    assert in_small(arguments[:2]) == in_small([*arguments[:2], "smoke=false"]) == arguments[:2]
    assert in_small([*arguments[:2], "--smoke"]) == in_small(arguments)
    with pytest.raises(UserError, match="smoke: 'yes' is unknown; allowed are true, false"):
        in_small([*arguments[:2], "smoke=yes"])
    for wrong in (["smoke=true"], ["experiment=demo", "smoke=true"]):
        with pytest.raises(UserError, match=r"experiment= one of .*exp-1-main-perf"):
            in_small(wrong)


@pytest.mark.parametrize("name", options("dataset"))
def test_every_dataset_composes(name: str) -> None:
    others = {"digits": "vit-digits", "imagenet1k": "vit-digits"}
    others |= dict.fromkeys(("wmt16-ro-en", "django-messages"), "t5-small")
    others |= dict.fromkeys(("digit-captions", "flickr8k"), "vilt-b32")
    other = others.get(name, "tinybert")
    assert config("dataset=" + name, "model=" + other).dataset.name == name


@pytest.mark.parametrize("name", options("variant"))
def test_every_variant_composes_under_its_file_name(name: str) -> None:
    own = ["variant.apply=own_methods.freeze_nothing", "variant.name=own"] if name == "own" else []
    assert config("variant=" + name, *own).variant.name == name


@pytest.mark.parametrize("name", options("system"))
def test_every_system_composes_under_the_name_of_its_parts(name: str) -> None:
    several = ["system.processes=2"] if name.partition("-")[0] in {part.name for part in SHARDING} else []
    assert config("system=" + name, *several).system.name == name


@pytest.mark.parametrize("name", options("tracking"))
def test_every_tracking_composes(name: str) -> None:
    assert config("tracking=" + name).tracking.trackers == (() if name == "off" else (name,))


@pytest.mark.parametrize("name", options("arm"))
def test_every_arm_composes_under_the_names_of_its_variant_and_parts(name: str) -> None:
    run = config("arm=" + name, "system.processes=2")
    named = f"{run.variant.name}-{run.system.name}"
    assert named.replace("-bf16", "").replace("-checkpointing", "") == name  # every arm has these two


@pytest.mark.parametrize(
    "file", sorted((conf_folder() / "task").rglob("*.yaml")), ids=lambda f: f"{f.parent.name}/{f.stem}"
)
def test_every_task_composes_with_what_its_file_names(file: Path) -> None:
    task = str(file.relative_to(conf_folder() / "task").with_suffix(""))
    run, overrides = config("task=" + task), yaml.safe_load(file.read_text())["defaults"]
    named = {key.removeprefix("override /"): value for entry in overrides for key, value in entry.items()}
    assert (run.model.name, run.dataset.name) == (named["model"], named["dataset"])


def test_every_yaml_file_opens_with_a_comment() -> None:
    for file in conf_folder().rglob("*.yaml"):
        assert file.read_text().startswith("# "), f"{file} does not say what it is"
        assert yaml.safe_load(file.read_text()) is not None


def test_null_is_completed_by_model_dataset_and_folder() -> None:
    done = config("runs_dir=some/where")
    assert (done.train.lr, done.train.epochs, done.train.batch_size) == (2e-3, 10, 32)
    assert done.runs_dir == str(Path("some/where").resolve())
    assert done.tracking.uri == f"sqlite:///{done.runs_dir}/mlflow.db"
    assert config(*TEXT).train.lr == 5e-5
    assert config(*TEXT, "model.pretrained=false").train.lr == 5e-4
    assert config(*TEXT, "train.lr=0.5").train.lr == 0.5


def test_system_parts_name_the_system() -> None:
    system = config("system.parts=[bf16,checkpointing]").system
    assert (system.name, system.parts) == ("bf16-checkpointing", [Part.bf16, Part.checkpointing])


@pytest.mark.parametrize(
    "override", ["name=other", "runs_dir=/elsewhere", "tracking.uri=http://host:1", "tracking=off"]
)
def test_where_results_go_is_no_part_of_the_identity(override: str) -> None:
    assert config(override).run_id == config().run_id


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "variant=pm-drop",
        "train.lr=0.1",
        "system=bf16",
        "dataset.val_fraction=0.2",
        "variant.p=0.2",
        "train.threads=1",
    ],
)
def test_what_can_change_the_result_is(override: str) -> None:
    assert config(override).run_id != config().run_id


def test_options_of_packed_masks_do_not_multiply_the_baseline() -> None:
    assert config("variant.rng=torch", "variant.bits=4").run_id == config().run_id
    assert config("variant=pm-drop", "variant.rng=torch").run_id != config("variant=pm-drop").run_id


def test_identity_survives_yaml() -> None:
    one = config("variant=4bit", "seed=7", "system=bf16")
    assert yaml.safe_load(yaml.safe_dump(one.to_dict())) == one.to_dict()
    assert one.run_id.startswith("4bit-s7-")


@given(st.text(min_size=1, max_size=70))
def test_no_name_leads_out_of_the_run_folder(name: str) -> None:
    parts: dict[str, Any] = {
        group: getattr(DEFAULT, group) for group in ("model", "dataset", "variant", "system")
    }
    try:
        run = RunConfig(name=name, train=TrainConfig(), tracking=TrackingConfig(), runs_dir="/runs", **parts)
    except UserError:
        return
    assert run.folder.resolve().parent.parent == Path("/runs")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=-1", "seed: -1"),
        ("variant.bits=3", "variant.bits: 3"),
        ("variant.p=1.5", "variant.p: 1.5"),
        ("train.lr=0", "train.lr: 0"),
        ("train.batch_size=0", "train.batch_size: 0"),
        ("train.patience=0", "train.patience: 0"),
        (
            "train.evaluate_every=2.5",
            "train.evaluate_every: 2.5 is neither a whole number of steps nor a share",
        ),
        ("train.evaluate_every=0", "train.evaluate_every: 0 is neither"),
        ("train.warmup_fraction=2", "train.warmup_fraction: 2"),
        ("dataset.max_length=1", "dataset.max_length: 1"),
        ("dataset.metrics=[]", "dataset.metrics: \\[\\]"),
        ("dataset.metrics=[acuracy]", "dataset.metrics: .'acuracy'."),
        ("dataset.val_fraction=0", "dataset.val_fraction: 0"),
        ("model.pretrained=true", "has no checkpoint"),
        ("model=tinybert", "the model takes texts or symbols, the dataset holds images"),
        ("system.parts=[bf16,bf16]", "twice"),
        ("tracking.uri=file:///x", "tracking.uri: 'file:///x'"),
        ("tracking.interval_s=0", "tracking.interval_s: 0"),
        ("name=../up", "name: '../up'"),
        ("model.lora.rank=0", "model.lora.rank: 0"),
        ("model.lora.alpha=0", "model.lora.alpha: 0"),
        ("model.lora.dropout=-0.1", "model.lora.dropout: -0.1"),
        ("model.lora.targets=[]", "model.lora.targets: names no layer"),
    ],
)
def test_a_bad_value_is_named_with_its_key(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        config(override)


@pytest.mark.parametrize(
    "uri",
    [
        "https://me:hidden@host",
        "http://hidden@host:5000",
        "postgresql://me:hidden@host/db",
        "mysql://host/db?Password=hidden",
        "mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BX%7D%3BPWD%3Dhidden",
        "mssql+pyodbc:///?odbc_connect=UID%253Dme%253BPWD%253D%257Bhidden%257D",
        "http://host/#access_token=hidden",
        "http://host/#/page?token=hidden",
        "http://host/?sig=hidden",
        "http://host/?x=1;pass%77ord=hidden",
        "http://me%3Ahidden@host",
        "http://host/hf_hiddenabcdefghijkl/",
        "http://host/3f2a9b8c7d6e5f4a3b2c1d0e9f8a7b6c/",
        "https://host/t/Zx8Kq2Lm9Np4Rt6Vw1Ys3Ab5/",
        "http://[::1/?password=hidden",
    ],
)
def test_a_secret_in_the_address_of_a_tracker_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(UserError, match="MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD") as refused:
        TrackingConfig(uri=uri)
    assert "hidden" not in str(refused.value)


def test_an_address_without_a_secret_is_taken() -> None:
    for uri in (
        "https://host/path", "http://[::1]:5000", "http://host/experiments/production-2026-11-27", "databricks://profile",
        "postgresql+psycopg2://me@host/db", "postgresql://host/db?sslmode=require&sslkey=/home/me/x.pem",
        "sqlite:////a:b@c/mlflow.db", "sqlite:////tmp/AbC1dE2fG3hI4jK5lM6nO7/mlflow.db",
    ):  # fmt: skip
        assert TrackingConfig(uri=uri).uri == uri


@pytest.mark.parametrize("uri", ["http://[::1", "http://host:99999999"])
def test_what_is_no_address_of_a_tracker_is_one_line(uri: str) -> None:
    with pytest.raises(UserError, match=r"^tracking\.uri: .* is no address") as refused:
        TrackingConfig(uri=uri)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("key", ["model.path", "dataset.path", "runs_dir", "protocol.question"])
@pytest.mark.parametrize(
    "value", ["https://me:hidden1@host/x", "a/password=hidden1", "ghp_hidden1abcdefghijklmnop"]
)
def test_no_key_takes_a_credential(key: str, value: str) -> None:
    """It would stand in config.yaml, MLflow, plan.json and the report, where it is read again as it is."""
    with pytest.raises(UserError, match=f"^{key}: it holds a password or token") as refused:
        config(f"{key}='{value}'")
    assert "hidden1" not in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["model.lora.rank=2", "model.lora.frozen_weights=bf16"],
            "model.lora.frozen_weights: bf16 weights need products in bf16; add bf16 to system.parts",
        ),
        (
            ["model.lora.rank=2", "task=smoke/longformer-listops"],
            "model.lora.rank: dataset=listops has a vocabulary of its own",
        ),
    ],
)
def test_adapters_that_could_not_work_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        config(*overrides)
