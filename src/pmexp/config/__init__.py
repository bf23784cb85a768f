"""Declares what a run is: every key, its type, default, unit and check. YAML in conf/ only chooses values.

One file a group of keys. This package imports no torch: `--help`, the launcher and the identity of a run stay
quick.
"""

from pmexp.config.checkpoint import CheckpointConfig
from pmexp.config.dataset import (
    INPUTS_OF,
    LANGUAGE,
    DatasetConfig,
    DatasetKind,
    GenerationConfig,
    Inputs,
    Objective,
    Padding,
    TreesConfig,
)
from pmexp.config.lora import FrozenWeights, LoraConfig
from pmexp.config.measure import MeasureConfig
from pmexp.config.model import Attention, ModelConfig, ModelKind
from pmexp.config.robustness import RobustnessConfig
from pmexp.config.run import RunConfig, build, flat, from_dict, parse, register
from pmexp.config.saved import read_config, settings_of
from pmexp.config.sharing import share_trainings
from pmexp.config.system import SHARDING, Device, Matmul, Part, SystemConfig
from pmexp.config.tracking import TRACKERS, TrackingConfig, WandbMode
from pmexp.config.train import Schedule, Select, TrainConfig
from pmexp.config.variant import Rng, VariantConfig, Where

__all__ = [
    "INPUTS_OF",
    "LANGUAGE",
    "SHARDING",
    "TRACKERS",
    "Attention",
    "CheckpointConfig",
    "DatasetConfig",
    "DatasetKind",
    "Device",
    "FrozenWeights",
    "GenerationConfig",
    "Inputs",
    "LoraConfig",
    "Matmul",
    "MeasureConfig",
    "ModelConfig",
    "ModelKind",
    "Objective",
    "Padding",
    "Part",
    "Rng",
    "RobustnessConfig",
    "RunConfig",
    "Schedule",
    "Select",
    "SystemConfig",
    "TrackingConfig",
    "TrainConfig",
    "TreesConfig",
    "VariantConfig",
    "WandbMode",
    "Where",
    "build",
    "flat",
    "from_dict",
    "parse",
    "read_config",
    "register",
    "settings_of",
    "share_trainings",
]
