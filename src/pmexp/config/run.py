"""Declares a whole run: its groups of keys, the checks across them, and its identity."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from pmexp.config.canonical import canonicalise, real_path
from pmexp.config.checkpoint import CheckpointConfig
from pmexp.config.checks import check_between, check_name, check_no_credential
from pmexp.config.dataset import INPUTS_OF, DatasetConfig, Inputs, Objective
from pmexp.config.identity import RATES, one_form, without
from pmexp.config.kinds import architecture_of
from pmexp.config.lora import FrozenWeights
from pmexp.config.measure import MeasureConfig
from pmexp.config.model import ModelConfig, ModelKind
from pmexp.config.robustness import RobustnessConfig
from pmexp.config.system import Part, SystemConfig
from pmexp.config.tracking import TrackingConfig
from pmexp.config.train import TrainConfig
from pmexp.config.values import Blueprint, with_values
from pmexp.config.variant import VariantConfig
from pmexp.errors import UserError
from pmexp.own_code import described, is_import_path
from pmexp.protocol import ProtocolConfig, check_written
from pmexp.run_folder.plan import labels_by
from pmexp.run_folder.run_id import digest_of_run, digest_of_settings

_NO_PART_OF_THE_RESULT = (
    "name",
    "runs_dir",
    "share_training",
    "checkpoint",
    "tracking",
    "protocol",
    "train.workers",
)
_RECOMMENDS = {  # what a model and a dataset have for the keys of train that are null
    "model.lr": "lr",
    "model.scratch_lr": "lr",
    "dataset.epochs": "epochs",
    "dataset.batch_size": "batch_size",
}
_TAKES = {  # the others: texts, symbols
    ModelKind.auto: (Inputs.texts, Inputs.symbols, Inputs.images),
    ModelKind.vit: (Inputs.images,),
    ModelKind.vilt: (Inputs.image_texts,),
}
_PATHS = ("runs_dir", "dataset.path", "model.path", "robustness.ood.path")


@dataclass(kw_only=True)
class RunConfig:
    """Holds all keys of one run."""

    name: str = "default"  # names the experiment: its folder of runs, and what trackers have of it
    seed: int = 0  # draws initial weights, dropout and the order of samples
    runs_dir: str = "runs"  # folder of all run folders
    share_training: bool = False  # one of a sweep's runs trains for all that are one training; these measure
    model: ModelConfig = MISSING
    dataset: DatasetConfig = MISSING
    variant: VariantConfig = MISSING
    system: SystemConfig = field(default_factory=SystemConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    robustness: RobustnessConfig = field(default_factory=RobustnessConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    code: dict[str, str] = field(default_factory=dict)  # derived: version and digest of each import path

    def __post_init__(self) -> None:
        """Checks across groups, and fills in the values that null leaves to the model, the dataset or the
        folder."""
        self._refuse_credentials()
        canonicalise(self)
        check_name("name", self.name)
        check_between("seed", self.seed, 0, 2**32 - 1)
        given = INPUTS_OF[self.dataset.kind]
        taken = _TAKES.get(self.model.kind, (Inputs.texts, Inputs.symbols))
        if given not in taken and not self.model.builder:
            raise UserError(
                f"model={self.model.name} dataset={self.dataset.name}: the model takes "
                f"{' or '.join(inputs.name for inputs in taken)}, the dataset holds {given.name}; "
                "choose two that fit"
            )
        self._check_model()
        self._check_robustness()
        self._check_lora()
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
        # A record has its own: today's code may be another.
        if self.code.keys() != {path for _, path in self.own_code}:
            self.code = {path: described(key, path) for key, path in self.own_code}
        if self.tracking.uri is None:
            self.tracking.uri = f"sqlite:///{self.runs_dir}/mlflow.db"

    def _refuse_credentials(self) -> None:
        for key, value in flat(self.to_dict()).items():
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str):
                    check_no_credential(key, text)

    def _check_model(self) -> None:
        objective, architecture = self.dataset.objective, architecture_of(self.model)
        known = architecture.objectives
        if objective not in known:
            raise UserError(
                f"dataset.objective: {objective.name} is nothing that model={self.model.name} "
                f"(model.kind={self.model.kind.name}) is trained for; choose another model, or one of "
                f"{', '.join(each.name for each in known)}"
            )

        if objective is Objective.seq2seq and Part.compile in self.system.parts:
            raise UserError(
                "system.parts: compile is not for dataset.objective=seq2seq, whose encoder, decoder and "
                "lengths take more graphs than torch keeps of one layer's code; leave it out"
            )
        one_rate = not architecture.attention_dropout and self.model.kind is not ModelKind.auto
        if self.model.attention_dropout is not None and one_rate:
            raise UserError(
                f"model.attention_dropout: model={self.model.name} has one rate for all places; set "
                "model.hidden_dropout"
            )

    def _check_robustness(self) -> None:
        ood = self.robustness.ood
        if self.robustness.fgsm is not None and not self.takes_images:
            raise UserError(
                f"robustness.fgsm: attacks images and model={self.model.name} takes texts, alone or beside "
                "images; leave it null"
            )
        if ood is not None and (INPUTS_OF[ood.kind], ood.objective) != (
            INPUTS_OF[self.dataset.kind],
            self.dataset.objective,
        ):
            raise UserError(
                f"robustness.ood: {ood.name} is not of the kind of dataset={self.dataset.name}; choose one "
                f"with {INPUTS_OF[self.dataset.kind].name} for {self.dataset.objective.name}"
            )

    def _check_lora(self) -> None:
        lora = self.model.lora
        if lora.rank is None:
            return
        if self.model.builder:
            raise UserError(
                f"model.lora.rank: adapters are for models of transformers, and model.builder="
                f"{self.model.builder} makes any; leave model.lora out"
            )
        if lora.frozen_weights is FrozenWeights.bf16 and Part.bf16 not in self.system.parts:
            raise UserError(
                "model.lora.frozen_weights: bf16 weights need products in bf16; add bf16 to system.parts, or "
                "set model.lora.frozen_weights=fp32"
            )
        if INPUTS_OF[self.dataset.kind] is Inputs.symbols:
            raise UserError(
                f"model.lora.rank: dataset={self.dataset.name} has a vocabulary of its own, whose embeddings "
                "would stay random; leave model.lora out"
            )

    @property
    def takes_images(self) -> bool:
        """Whether samples are pictures, without texts beside them."""
        return INPUTS_OF[self.dataset.kind] is Inputs.images

    @property
    def labels(self) -> dict[str, str | int]:
        """The few words that tell runs apart: columns of tables, tags of the tracker, legends of plots."""
        names = {
            "model": self.model.name,
            "dataset": self.dataset.name,
            "variant": self.variant.name,
            "system": self.system.name,
        }
        return labels_by(names, self.seed, bool(self.train.shared_with))

    @property
    def settings(self) -> dict[str, Any]:
        """Every key of the resolved configuration, dotted and in one form, that can change its result."""
        settings = without(flat(self.to_dict()), (*_NO_PART_OF_THE_RESULT, *self._without_effect()))
        return one_form(settings, self.model, self.variant.p)

    @property
    def own_code(self) -> list[tuple[str, str]]:
        """The keys that name code of one's own that the run executes, each with an import path."""
        loaders = {"dataset.loader": self.dataset, "robustness.ood.loader": self.robustness.ood}
        return [
            *self.variant.own_code.items(),
            *((key, each.loader) for key, each in loaders.items() if each and each.loader),
            *([("model.builder", self.model.builder)] if self.model.builder else []),
            *(("dataset.metrics", name) for name in self.dataset.metrics if is_import_path(name)),
            *(("system.own_parts", path) for path in self.system.own_parts),
        ]

    @property
    def has_local_files(self) -> bool:
        """Whether files that a person named are its data or its checkpoint."""
        ood, model = self.robustness.ood, self.model
        return bool(self.dataset.path or (ood and ood.path) or (model.pretrained and model.path))

    def unused(self, key: str) -> str:
        """Why this run has no use for a key, which then has its default; empty where it has a use."""
        group, _, name = key.rpartition(".")
        if group == "variant" and not self.variant.takes(name):
            return f"variant={self.variant.name} does not take it"
        if group.partition(".")[0] == "model":
            return self.model.unused(key.removeprefix("model."))
        if key.startswith("dataset."):
            return self.dataset.unused(key.removeprefix("dataset."))
        if key.partition(".")[0] == "code":
            return "it says what the sources are"
        return "system.parts names it" if key == "system.name" else ""

    def ignored(self, key: str) -> str:
        """Why nothing in this run depends on a key that has a value; empty where something does."""
        value, p = flat(self.to_dict()).get(key), self.variant.p
        if value is None:
            return ""
        if key.startswith("tracking."):
            return self.tracking.ignored(key.removeprefix("tracking."))
        if taken := _RECOMMENDS.get(key):
            instead = getattr(self.train, taken)
            return "" if value == instead else f"train.{taken}={instead} is taken"
        if key in RATES and p not in (None, value):
            return f"variant.p={p} is taken at every place"
        if key not in self._without_effect():
            return ""
        if key.startswith("model.architecture."):
            return "a checkpoint has its own (model.pretrained=true)"
        return "under the other keys of this run nothing reads it"

    @property
    def run_id(self) -> str:
        """`<variant>-s<seed>-<hash>`: the hash of all that can change the result.

        Left out are the experiment's name and protocol, the run folder's place, resume checkpoints, the
        tracker, keys without effect under the others' values, and younger keys at the value that runs had
        before there were these keys. A dataset's or pretrained model's path
        stays in: another folder may hold other data.
        """
        return f"{self.variant.name}-s{self.seed}-{digest_of_run(self.settings)}"

    @property
    def training(self) -> str:
        """A digest of all that the weights follow from. Runs that have one digest differ in how masks are
        kept, and their trainings in nothing. Compiled layers are other kernels for each, and may round apart.
        """
        keeping = () if Part.compile in self.system.parts else self.variant.entry.keeping
        return digest_of_settings(
            without(self.settings, ["variant.name", *(f"variant.{key}" for key in keeping)])
        )

    @property
    def is_judged(self) -> bool:
        """Whether it is what the criteria of its protocol judge, or what they compare with."""
        names = (self.variant.name, f"{self.variant.name}-{self.system.name}")
        return self.protocol.method in names or self.protocol.baseline in names

    @property
    def folder(self) -> Path:
        return Path(self.runs_dir) / self.name / self.run_id

    def _without_effect(self) -> list[str]:
        groups = ("model", "dataset", "train", "robustness")
        keys = [f"{group}.{key}" for group in groups for key in getattr(self, group).without_effect]
        own_attention = {Part.flash, Part.xformers} & {*self.system.parts}
        if own_attention and self.model.kind is not ModelKind.longformer:
            keys.append("model.attention")  # these parts put their own in the place of either
        if self.variant.mask_stream is None:  # the id is the one that a run had before there were streams
            keys.append("variant.mask_stream")
        if self.model.pretrained:  # only the rates that are stated beside it are taken
            rates = architecture_of(self.model).rates
            keys += [f"model.architecture.{name}" for name in self.model.architecture if name not in rates]
        return keys

    def to_dict(self) -> dict[str, Any]:
        """The configuration in plain types only, for YAML and JSON."""
        plain: dict[str, Any] = _plain(self)
        return plain


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested mappings as one with dotted keys."""
    pairs: dict[str, Any] = {}
    for key, value in config.items():
        pairs |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return pairs


def register() -> None:
    """Tells Hydra the schema; the YAML files are checked against it when a run is composed."""
    ConfigStore.instance().store(name="run_schema", node=RunConfig)
    # For each lookup of a group Hydra copies its search path and with it this whole singleton, which took
    # 1.2 s of --help and half of the time that a sweep composes. It never writes to the copies.
    ConfigStore.__deepcopy__ = lambda store, memo: store  # type: ignore[attr-defined]


def parse(config: DictConfig) -> RunConfig:
    """Returns the typed, checked and completed configuration of what was typed; relative paths are made
    absolute from the current folder. Raises UserError or an OmegaConf error."""
    with with_values(config, _absolute({key: OmegaConf.select(config, key) for key in _PATHS})):
        run = _typed(config)
    check_written(run.protocol, str(run.labels["task"]), run.dataset.metrics)
    return run


def build(blueprint: Blueprint, values: Mapping[str, Any]) -> RunConfig:
    """Returns what `parse` does of the configuration that has the `values` at some of its keys. They are of
    the types that the keys declare. Raises UserError."""
    paths = _absolute({key: values.get(key, blueprint.at(key)) for key in _PATHS})
    run = blueprint.build({**values, **paths})
    assert isinstance(run, RunConfig)
    check_written(run.protocol, str(run.labels["task"]), run.dataset.metrics)
    return run


def _absolute(typed: Mapping[str, Any]) -> dict[str, str]:
    """The paths among the values, by their keys. Raises UserError for one that names no folder."""
    return {key: real_path(key, path) for key, path in typed.items() if isinstance(path, str)}


def from_dict(values: Mapping[str, Any]) -> RunConfig:
    """The configuration whose `to_dict` gave `values`. Paths stay as they are: another machine, or a later
    day, may have other links, and it is still the same run."""
    config = OmegaConf.merge(OmegaConf.structured(RunConfig), dict(values))
    assert isinstance(config, DictConfig)
    return _typed(config)


def _typed(config: DictConfig) -> RunConfig:
    run = OmegaConf.to_object(config)
    assert isinstance(run, RunConfig)
    return run


def _plain(value: Any) -> Any:
    if isinstance(value, (str, int, float, type(None))):
        return value
    if isinstance(value, Enum):
        return value.name
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
