"""Reads YAML files as they are written: what is text by the schema stays text. Imports no torch."""

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins import file_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult
from omegaconf import OmegaConf

from hydra_plugins import pmexp_launchers
from pmexp.command.schema import conf_folder, is_list_of_texts, is_text, type_at
from pmexp.command.shapes import check_shape, in_file
from pmexp.config import flat
from pmexp.config.checks import check_switch
from pmexp.errors import UserError
from pmexp.yaml_text import read

_AS_TEXT = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # takes no scalar for anything else


class FileConfigSource(file_config_source.FileConfigSource):
    """Reads files as Hydra does, but for texts that YAML takes for numbers: `revision: 12e4567` was 'inf'."""

    def load_config(self, config_path: str) -> ConfigResult:
        file = Path(self.path, self._normalize_file_name(config_path))
        if not file.is_file():
            raise ConfigLoadError(f"Config not found : {file}")
        try:
            text = file.read_text(encoding="utf-8")
            header = self._get_header_dict(text[:512])
            package = header["package"] or config_path.rpartition("/")[0].replace("/", ".")
            key = "" if package == "_global_" else package
            content = _content(text, key)
        except (ValueError, yaml.YAMLError) as error:
            raise UserError(f"{file}: cannot be read: {' '.join(str(error).split())}") from None
        for name, value in content.items() if isinstance(content, dict) else ():
            check_shape(str(file), f"{key}.{name}".strip("."), value, in_file)
        for name, value in flat(
            content if isinstance(content, dict) else {}, f"{key}." if key else ""
        ).items():
            if type_at(name) is bool:
                check_switch(f"{file}: {name}", value)
        return ConfigResult(
            config=OmegaConf.create(content),
            path=f"{self.scheme()}://{self.path}",
            provider=self.provider,
            header=header,
        )


def use() -> None:
    """Has Hydra read its files by FileConfigSource."""
    # Hydra imports all modules below hydra_plugins in search of plugins. The launchers are none of its own,
    # and each command would import submitit and rich with them.
    path, pmexp_launchers.__path__ = pmexp_launchers.__path__, []
    try:
        Plugins.instance()  # registers Hydra's own, and refuses another of the same scheme
    finally:
        pmexp_launchers.__path__ = path
    SourcesRegistry.instance().types[FileConfigSource.scheme()] = FileConfigSource


def check_not_hidden(folder: Path) -> None:
    """Raises UserError for a file of `folder` that is not read, since Hydra takes pmexp's of that name.

    A file with the same content is no error.
    """
    for file in sorted(conf_folder().rglob("*.yaml")):
        name = file.relative_to(conf_folder())
        own = folder / name
        if own.is_file() and own.read_bytes() != file.read_bytes():
            raise UserError(f"{own}: would not be read, pmexp has a {name}; give it another name")


@lru_cache(maxsize=1024)  # a sweep reads the same files for each run
def _content(text: str, key: str) -> Any:
    written = read(text, _AS_TEXT)
    loaded = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)))
    return _as_written(loaded, written, key)


def _as_written(loaded: Any, written: Any, key: str) -> Any:
    """The value that was loaded for a key, with each text below it as the file has it."""
    if isinstance(loaded, dict) and isinstance(written, dict):
        return {
            name: _as_written(value, written.get(str(name)), f"{key}.{name}".strip("."))
            for name, value in loaded.items()
        }
    if isinstance(loaded, list) and isinstance(written, list):
        return [_as_written(value, text, key) for value, text in zip(loaded, written, strict=True)]
    takes_text = is_text(key) or is_list_of_texts(key) or key.startswith("hydra.sweeper.params.")
    return written if takes_text and isinstance(loaded, (int, float)) and isinstance(written, str) else loaded
