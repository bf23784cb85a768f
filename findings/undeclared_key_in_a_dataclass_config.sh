#!/usr/bin/env bash
# hydra-core 1.3.8, omegaconf 2.3.1: the override +key=value adds a key that the dataclass of a config does not have.
# A structured config checks names: train.rate=1 is refused where the field is called lr. With the plus sign of "add"
# the same name is accepted. OmegaConf.to_object then gives an instance of the dataclass which carries the value
# as a stray attribute: repr, ==, dataclasses.asdict, fields and replace leave it out, so a run recorded or compared by
# those does not show it. OmegaConf.to_container does. (A frozen dataclass refuses the override.)
# Output seen: object=Train(lr=0.1) equal=True asdict={'lr': 0.1} attribute=1 container={'lr': 0.1, 'rate': 1}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet hydra-core==1.3.8 omegaconf==2.3.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import dataclasses

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf


@dataclasses.dataclass
class Train:
    lr: float = 0.1


@dataclasses.dataclass(frozen=True)
class Frozen:
    lr: float = 0.1


def composed(kind, override):
    root = dataclasses.make_dataclass("Root", [("train", kind, dataclasses.field(default_factory=kind))])
    ConfigStore.instance().store(name="root", node=root)
    return hydra.compose("root", overrides=[override]).train


def refused(kind, override):
    try:
        composed(kind, override)
    except ConfigCompositionException:
        return True
    return False


with hydra.initialize(version_base=None, config_path=None):
    assert refused(Train, "train.rate=1")
    assert refused(Frozen, "+train.rate=1")
    config = composed(Train, "+train.rate=1")
made = OmegaConf.to_object(config)
assert dataclasses.replace(made).__dict__ == {"lr": 0.1}
found = (
    f"object={made} equal={made == Train()} asdict={dataclasses.asdict(made)} attribute={made.rate} "
    f"container={OmegaConf.to_container(config)}"
)
print(found)
expected = "object=Train(lr=0.1) equal=True asdict={'lr': 0.1} attribute=1 container={'lr': 0.1, 'rate': 1}"
assert found == expected
PYTHON
