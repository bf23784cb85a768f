"""What a run is: every key, its type, default, unit and check. YAML under conf/ only chooses values.

This module imports no torch: `--help`, the launcher and the identity of a run stay quick.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from pmexp.errors import UserError
from pmexp.metrics.task_metrics import TASK_METRICS

_WHERE_RESULTS_GO = ("name", "runs_dir", "tracking")
_TRACKING_URIS = ("sqlite:///", "http://", "https://", "postgresql", "mysql", "mssql", "databricks")


class ModelKind(Enum):
    bert = "bert"
    deberta_v2 = "deberta_v2"
    distilbert = "distilbert"
    gpt2 = "gpt2"
    gptj = "gptj"
    longformer = "longformer"
    roberta = "roberta"
    vit = "vit"


class Attention(Enum):
    eager = "eager"
    sdpa = "sdpa"


class DatasetKind(Enum):
    digits = "digits"
    imagenet = "imagenet"
    reuters_r8 = "reuters_r8"
    text = "text"
    language = "language"
    listops = "listops"


class Inputs(Enum):
    """What a sample is: a model takes some of these."""

    images = "images"
    texts = "texts"
    symbols = "symbols"


INPUTS_OF = {
    DatasetKind.digits: Inputs.images,
    DatasetKind.imagenet: Inputs.images,
    DatasetKind.reuters_r8: Inputs.texts,
    DatasetKind.text: Inputs.texts,
    DatasetKind.language: Inputs.texts,
    DatasetKind.listops: Inputs.symbols,
}


class Objective(Enum):
    classification = "classification"
    masked_lm = "masked_lm"


class Dropout(Enum):
    stock = "stock"
    byte_mask = "byte_mask"
    hooks = "hooks"
    packed = "packed"
    seeded = "seeded"


class Where(Enum):
    all = "all"
    attention = "attention"
    hidden = "hidden"


class Rng(Enum):
    philox = "philox"
    torch = "torch"


class Part(Enum):
    ddp = "ddp"
    zero1 = "zero1"
    zero2 = "zero2"
    fsdp = "fsdp"
    bf16 = "bf16"
    fp16 = "fp16"
    checkpointing = "checkpointing"
    flash = "flash"
    tempo = "tempo"
    offload = "offload"


SHARDING = (Part.ddp, Part.zero1, Part.zero2, Part.fsdp)  # parts that spread a run over processes
_ONE_OF = (SHARDING, (Part.bf16, Part.fp16))  # of each, at most one


class Device(Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Schedule(Enum):
    linear = "linear"
    cosine = "cosine"
    constant = "constant"


class Select(Enum):
    best = "best"
    last = "last"


class Tracker(Enum):
    mlflow = "mlflow"
    off = "off"


@dataclass(kw_only=True)
class ModelConfig:
    name: str = MISSING
    kind: ModelKind = MISSING
    hub_id: str | None = None  # checkpoint on the Hugging Face hub
    revision: str | None = None  # commit of the checkpoint
    path: str | None = None  # local checkpoint folder, instead of hub_id
    pretrained: bool = False  # false: random weights in the architecture below
    attention: Attention = Attention.eager
    positions: int | None = None  # a longer position table, the trained one repeated; null: the model's own
    hidden_dropout: float | None = None  # rate of all dropout but attention's; null: the model's own
    attention_dropout: float | None = None  # rate of attention's dropout; null: the model's own
    architecture: dict[str, Any] = field(default_factory=dict)  # fields of the transformers config
    lr: float = 5e-5  # recommended peak learning rate of a pretrained model
    scratch_lr: float = 1e-3  # the same with pretrained=false

    def __post_init__(self) -> None:
        _name("model.name", self.name)
        _positive("model.lr", self.lr)
        _positive("model.scratch_lr", self.scratch_lr)
        for key in ("hidden_dropout", "attention_dropout"):
            if getattr(self, key) is not None:
                _between(f"model.{key}", getattr(self, key), 0.0, 1.0)
        if self.positions is not None:
            _at_least("model.positions", self.positions, 2)
        if self.pretrained and not (self.hub_id or self.path):
            raise UserError(
                f"model.pretrained=true: {self.name} has no checkpoint; "
                "set model.path=<folder> or model.pretrained=false"
            )

    @property
    def takes_images(self) -> bool:
        return self.kind is ModelKind.vit


@dataclass(kw_only=True)
class TreesConfig:
    """Generated expressions of listops; the defaults are those of Long Range Arena."""

    samples: int = 100_000  # 80 % train, 10 % val, 10 % test
    min_length: int = 500  # tokens: trees have more than this ...
    max_length: int = 2000  # ... and fewer than this
    max_depth: int = 10
    max_args: int = 10  # of an operator; the fewest are 2
    leaf_probability: float = 0.75  # that a node above max_depth is a digit
    seed: int = 0  # of the data; a run's own seed changes nothing here

    def __post_init__(self) -> None:
        _at_least("dataset.trees.samples", self.samples, 10)
        _at_least("dataset.trees.min_length", self.min_length, 1)
        _at_least("dataset.trees.max_length", self.max_length, self.min_length + 2)
        _at_least("dataset.trees.max_depth", self.max_depth, 2)
        _at_least("dataset.trees.max_args", self.max_args, 2)
        _between("dataset.trees.leaf_probability", self.leaf_probability, 0.01, 0.99)
        _between("dataset.trees.seed", self.seed, 0, 2**32 - 1)


@dataclass(kw_only=True)
class DatasetConfig:
    name: str = MISSING
    kind: DatasetKind = MISSING
    objective: Objective = Objective.classification
    hub_id: str | None = None
    hub_config: str | None = None  # the subset's name on the hub
    revision: str | None = None  # commit of the hub dataset
    path: str | None = None  # local folder, instead of the hub
    text_columns: list[str] = field(default_factory=list)  # one text, or two that form a pair
    label_column: str = "label"
    image_column: str = "image"
    trees: TreesConfig = field(default_factory=TreesConfig)  # only of listops
    max_length: int = 128  # tokens; longer texts are cut, shorter ones padded
    val_fraction: float = 0.1  # share of train carved off where the set has no validation split
    metrics: list[str] = field(default_factory=lambda: ["accuracy"])  # the first one selects the model
    epochs: int = 3  # recommended passes over train
    batch_size: int = 32  # recommended samples a step

    def __post_init__(self) -> None:
        _name("dataset.name", self.name)
        _at_least("dataset.max_length", self.max_length, 2)
        _at_least("dataset.epochs", self.epochs, 1)
        _at_least("dataset.batch_size", self.batch_size, 1)
        _between("dataset.val_fraction", self.val_fraction, 0.0, 0.5, open_low=True)
        known = [name for name, metric in TASK_METRICS.items() if metric.objective == self.objective.name]
        unknown = [name for name in self.metrics if name not in known]
        if unknown or not self.metrics:
            raise UserError(
                f"dataset.metrics: {unknown or '[]'} is no list of metrics of {self.objective.name}; "
                f"name some of {', '.join(known)}"
            )
        if self.kind is not DatasetKind.listops:
            self.trees = TreesConfig()
        elif self.max_length % 256 or self.max_length < self.trees.max_length:
            raise UserError(
                f"dataset.max_length: {self.max_length} must be a multiple of 256 that is not less than "
                f"dataset.trees.max_length={self.trees.max_length}"
            )


@dataclass(kw_only=True)
class VariantConfig:
    name: str = MISSING
    dropout: Dropout = MISSING
    where: Where = Where.all
    p: float | None = None  # dropout rate of every place; null keeps the model's own rates
    bits: int = 1  # width of a stored mask value
    rng: Rng = Rng.philox
    cache_unpacked: bool = True
    flip_rate: float = 0.0  # share of the stored bits flipped before backward
    recompute: bool = False  # attention's dropped probabilities are made again in backward, not saved

    def __post_init__(self) -> None:
        """Options that only packed masks have are put back to their defaults for other dropouts, so that a
        sweep over them runs the baseline once."""
        _name("variant.name", self.name)
        if self.p is not None:
            _between("variant.p", self.p, 0.0, 1.0)
        if self.bits not in (1, 2, 4):
            raise UserError(f"variant.bits: {self.bits} is not a width; allowed are 1, 2 and 4")
        _between("variant.flip_rate", self.flip_rate, 0.0, 1.0)
        if self.dropout is not Dropout.packed:
            self.bits, self.rng, self.cache_unpacked = 1, Rng.philox, True
            self.flip_rate, self.recompute = 0.0, False


@dataclass(kw_only=True)
class SystemConfig:
    parts: list[Part] = field(default_factory=list)
    device: Device = Device.auto  # auto: CUDA where there is one; the record says which
    processes: int = 1  # over which the global batch is spread; more than one need ddp, zero1, zero2 or fsdp
    name: str = ""  # derived: the parts joined by "-", "plain" without any

    def __post_init__(self) -> None:
        if len(set(self.parts)) != len(self.parts):
            raise UserError(f"system.parts: {[p.name for p in self.parts]} names a part twice; name it once")
        _at_least("system.processes", self.processes, 1)
        for group in _ONE_OF:
            chosen = [part.name for part in group if part in self.parts]
            if len(chosen) > 1:
                raise UserError(
                    f"system.parts: {' and '.join(chosen)} exclude each other; choose one of them"
                )
        if self.sharding in (Part.zero1, Part.zero2) and Part.fp16 in self.parts:
            raise UserError(
                f"system.parts: {self.sharding.name} and fp16 exclude each other, since DeepSpeed clips the "
                "scaled gradient; choose bf16, or fp16 with ddp or fsdp"
            )
        self._check_processes()
        self.name = "-".join(part.name for part in self.parts) or "plain"

    @property
    def sharding(self) -> Part | None:
        """The part that spreads the run over its processes."""
        return next((part for part in SHARDING if part in self.parts), None)

    def _check_processes(self) -> None:
        if self.processes > 1 and self.sharding is None:
            raise UserError(
                f"system.processes: {self.processes} processes need a part that spreads the run over them; "
                f"add one of {', '.join(part.name for part in SHARDING)} to system.parts"
            )
        if self.processes == 1 and self.sharding is not None:
            raise UserError(
                f"system.parts: {self.sharding.name} spreads a run over processes and there is one; "
                "set system.processes=2 or more, or leave it out"
            )


@dataclass(kw_only=True)
class TrainConfig:
    epochs: int | None = None  # null: the dataset's
    max_steps: int | None = None  # ends training early
    batch_size: int | None = None  # samples a step; null: the dataset's
    accumulate: int = 1  # parts in which a step's batch is run, their gradients summed
    lr: float | None = None  # peak learning rate; null: the model's
    weight_decay: float = 0.01
    warmup_fraction: float = 0.1  # share of the steps with rising learning rate
    schedule: Schedule = Schedule.linear
    clip_norm: float = 1.0  # gradient norm above which it is scaled down
    select: Select = Select.best  # weights to test: of the best validation metric, or the last
    patience: int | None = 3  # evaluations without a new best before stopping; only with select=best
    log_every: int = 10  # steps between journal records of loss and gradient norm
    threads: int | None = None  # CPU threads; null: torch's own choice

    def __post_init__(self) -> None:
        for key in ("epochs", "max_steps", "batch_size", "patience", "threads"):
            if getattr(self, key) is not None:
                _at_least(f"train.{key}", getattr(self, key), 1)
        if self.lr is not None:
            _positive("train.lr", self.lr)
        _at_least("train.log_every", self.log_every, 1)
        _at_least("train.accumulate", self.accumulate, 1)
        _positive("train.clip_norm", self.clip_norm)
        _between("train.weight_decay", self.weight_decay, 0.0, 1.0)
        _between("train.warmup_fraction", self.warmup_fraction, 0.0, 1.0)


@dataclass(kw_only=True)
class MeasureConfig:
    """What is measured beside memory and time. Steps that an instrument slows are not timed."""

    flops: bool = True  # of one step
    energy: bool = True  # of all steps, by NVML where there is one
    updates: list[int] = field(
        default_factory=lambda: [1, 10, 100, 1000, 10000]
    )  # steps; see measure/updates.py
    profile: bool = False  # a few steps under torch.profiler
    nsight: bool = False  # ranges and the captured steps for Nsight Systems and Nsight Compute
    snapshot: bool = True  # of the CUDA allocator where a run is out of memory

    def __post_init__(self) -> None:
        for step in self.updates:
            _at_least("measure.updates", step, 1)
        if self.profile and self.nsight:
            raise UserError(
                "measure.profile and measure.nsight: both trace the device; set one of them to false"
            )


@dataclass(kw_only=True)
class TrackingConfig:
    kind: Tracker = Tracker.mlflow
    uri: str | None = None  # null: sqlite in runs_dir
    interval_s: float = 30.0  # seconds between two batches sent while training

    def __post_init__(self) -> None:
        _between("tracking.interval_s", self.interval_s, 0.0, 86400.0)
        if self.uri is not None and not self.uri.startswith(_TRACKING_URIS):
            raise UserError(
                f"tracking.uri: {self.uri!r} is no tracker of MLflow; allowed are {', '.join(_TRACKING_URIS)}"
            )


@dataclass(kw_only=True)
class RunConfig:
    name: str = "default"  # of the experiment: run folder and MLflow experiment
    seed: int = 0
    runs_dir: str = "runs"
    model: ModelConfig = MISSING
    dataset: DatasetConfig = MISSING
    variant: VariantConfig = MISSING
    system: SystemConfig = field(default_factory=SystemConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        """Checks across groups, and the values that null leaves to the model, the dataset or the folder."""
        _name("name", self.name)
        _between("seed", self.seed, 0, 2**32 - 1)
        given = INPUTS_OF[self.dataset.kind]
        taken = (Inputs.images,) if self.model.takes_images else (Inputs.texts, Inputs.symbols)
        if given not in taken:
            raise UserError(
                f"model={self.model.name} dataset={self.dataset.name}: the model takes "
                f"{' or '.join(inputs.name for inputs in taken)}, the dataset holds {given.name}; "
                "choose two that fit"
            )
        train = self.train
        if train.lr is None:
            train.lr = self.model.lr if self.model.pretrained else self.model.scratch_lr
        train.epochs = train.epochs or self.dataset.epochs
        train.batch_size = train.batch_size or self.dataset.batch_size
        if train.batch_size % train.accumulate:
            raise UserError(
                f"train.accumulate: {train.accumulate} does not divide train.batch_size={train.batch_size}"
            )
        if train.batch_size % (train.accumulate * self.system.processes):
            raise UserError(
                f"train.batch_size: {train.batch_size} cannot be split evenly over {self.system.processes} "
                f"processes in {train.accumulate} parts each; choose a multiple of "
                f"{train.accumulate * self.system.processes}"
            )
        self.runs_dir = str(Path(self.runs_dir).expanduser().resolve())
        if self.tracking.uri is None:
            self.tracking.uri = f"sqlite:///{self.runs_dir}/mlflow.db"

    @property
    def labels(self) -> dict[str, str | int]:
        """The few words that tell runs apart: columns of tables, tags of the tracker, legends of plots."""
        return {
            "task": f"{self.model.name}/{self.dataset.name}",
            "model": self.model.name,
            "dataset": self.dataset.name,
            "variant": self.variant.name,
            "system": self.system.name,
            "seed": self.seed,
        }

    @property
    def settings(self) -> dict[str, Any]:
        """Every key of the resolved configuration, dotted, without what says only where results go."""
        return flat({k: v for k, v in self.to_dict().items() if k not in _WHERE_RESULTS_GO})

    @property
    def run_id(self) -> str:
        """`<variant>-s<seed>-<hash>`: the hash of all that can change the result.

        Left out are the experiment's name, the run folder's place and the tracker. A dataset's or
        checkpoint's path stays in: another folder may hold other data.
        """
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
        return f"{self.variant.name}-s{self.seed}-{digest[:12]}"

    @property
    def folder(self) -> Path:
        return Path(self.runs_dir) / self.name / self.run_id

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, for YAML and JSON."""
        return {key: _plain(value) for key, value in asdict(self).items()}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys."""
    pairs: dict[str, Any] = {}
    for key, value in config.items():
        pairs |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return pairs


def register() -> None:
    """Tells Hydra the schema; the YAML files are checked against it when a run is composed."""
    ConfigStore.instance().store(name="run_schema", node=RunConfig)
    # For each lookup of a group Hydra copies its search path and with it this whole singleton, which took
    # 1.2 s of --help and half of the time that a sweep composes. It never writes to the copies.
    ConfigStore.__deepcopy__ = lambda store, memo: store  # type: ignore[attr-defined]


def parse(config: DictConfig) -> RunConfig:
    """The typed, checked and completed configuration. Raises UserError or an OmegaConf error."""
    run = OmegaConf.to_object(config)
    assert isinstance(run, RunConfig)
    return run


def from_dict(values: Mapping[str, Any]) -> RunConfig:
    """The configuration whose `to_dict` gave `values`."""
    config = OmegaConf.merge(OmegaConf.structured(RunConfig), dict(values))
    assert isinstance(config, DictConfig)
    return parse(config)


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _name(key: str, value: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
        raise UserError(
            f"{key}: {value!r} is not a name; allowed are up to 64 letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit"
        )


def _positive(key: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise UserError(f"{key}: {value} must be a positive number")


def _at_least(key: str, value: int, low: int) -> None:
    if value < low:
        raise UserError(f"{key}: {value} must be at least {low}")


def _between(key: str, value: float, low: float, high: float, open_low: bool = False) -> None:
    if not low <= value <= high or (open_low and value == low):
        raise UserError(f"{key}: {value} must lie in {'(' if open_low else '['}{low}, {high}]")
