"""Puts values into a composed configuration, which many runs share. Imports no torch."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf


@contextmanager
def with_values(config: DictConfig, values: Mapping[str, Any]) -> Iterator[None]:
    """Sets existing keys, and gives them back what stood there. Raises OmegaConf's errors for a value that
    its key does not take."""
    before = {key: written(config, key) for key in values}
    try:
        for key, value in values.items():
            OmegaConf.update(config, key, value)
        yield
    finally:
        for key, value in before.items():
            OmegaConf.update(config, key, value)


def written(config: DictConfig, key: str) -> Any:
    """What stands at an existing key, such as ${seed}, and not what it refers to."""
    parent, _, name = key.rpartition(".")
    group: Any = OmegaConf.select(config, parent) if parent else config
    return group._get_node(name)._value()


@dataclass(frozen=True)
class Blueprint:
    """Holds what a group of a configuration is built of. OmegaConf.to_object builds the same, and takes ten
    times as long."""

    built: type[Any]  # a dataclass, or dict
    parts: Mapping[str, Any]  # Blueprints of the groups in it, and values

    def build(self, values: Mapping[str, Any], prefix: str = "") -> Any:
        """The object, with other values at some of its keys, which are dotted and begin with `prefix`."""
        arguments = {}
        for name, part in self.parts.items():
            if isinstance(part, Blueprint):
                arguments[name] = part.build(values, f"{prefix}{name}.")
            else:
                value = values.get(f"{prefix}{name}", part)
                arguments[name] = copy.deepcopy(value) if isinstance(value, (list, dict)) else value
        return arguments if self.built is dict else self.built(**arguments)

    def at(self, key: str) -> Any:
        """The value at a dotted key; None where there is none."""
        name, _, below = key.partition(".")
        part = self.parts.get(name)
        return part.at(below) if isinstance(part, Blueprint) else part


def blueprint_of(config: DictConfig) -> Blueprint | None:
    """The blueprint of a composed configuration; None where a value is missing or refers to another, which
    OmegaConf alone can resolve."""
    content = str(OmegaConf.to_container(config))
    return None if "${" in content or "???" in content else _blueprint(config)


def _blueprint(config: DictConfig) -> Blueprint:
    parts: dict[str, Any] = {}
    for name in config:
        node: Any = config._get_node(name)
        if isinstance(node, DictConfig) and not node._is_none():
            parts[str(name)] = _blueprint(node)
        else:
            parts[str(name)] = OmegaConf.to_object(node) if OmegaConf.is_config(node) else node._value()
    return Blueprint(OmegaConf.get_type(config) or dict, parts)
