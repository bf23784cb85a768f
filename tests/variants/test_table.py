"""The table of dropouts: what it names is there, and each configuration keeps the options that its dropout takes."""

import inspect
from dataclasses import asdict, fields
from enum import Enum
from typing import Any

import pytest
import yaml
from torch import nn

from pmexp.command.schema import conf_folder
from pmexp.config import Rng, VariantConfig, Where
from pmexp.run_folder.run_id import digest_of_settings
from pmexp.variants.table import DROPOUTS

each_dropout = pytest.mark.parametrize("dropout", DROPOUTS)
BUNDLED = sorted((conf_folder() / "variant").glob("[!o]*.yaml"))  # own.yaml chooses no dropout
DEFAULTS = {
    "where": "all",
    "bits": 1,
    "rng": "philox",
    "cache_unpacked": True,
    "flip_rate": 0.0,
    "recompute": False,
}
OTHERS: dict[str, Any] = {
    "where": Where.attention, "bits": 2, "rng": Rng.torch, "cache_unpacked": False, "flip_rate": 0.5, "recompute": True,
}  # fmt: skip


def plain(config: VariantConfig) -> dict[str, Any]:
    """Returns the values that make up an identity, without a mask stream that nobody asked for."""
    younger = {"mask_stream": None, "apply": None, "options": {}}
    told = {
        key: value
        for key, value in asdict(config).items()
        if younger.get(key, value) != value or key not in younger
    }
    return {key: value.name if isinstance(value, Enum) else value for key, value in told.items()}


@each_dropout
def test_what_the_table_names_is_there_and_takes_its_options(dropout: str) -> None:
    cls, finish = DROPOUTS[dropout].load()
    assert issubclass(cls, nn.Dropout) and (finish is None or callable(finish))
    config = VariantConfig(name="any", dropout=dropout, **OTHERS)
    # The key "where" is replace_dropout's own.
    options = {key: value for key, value in config.replacing.items() if key != "where"}
    assert set(options) <= set(inspect.signature(cls).parameters)
    cls(0.1, **options)


def test_every_option_is_some_dropouts() -> None:
    options = {field.name for field in fields(VariantConfig)} - {
        "name", "dropout", "apply", "options", "p", "mask_stream",
    }  # fmt: skip
    assert {option for dropout in DROPOUTS.values() for option in dropout.takes} == options == set(DEFAULTS)


@pytest.mark.parametrize("file", BUNDLED, ids=lambda file: file.stem)
def test_a_bundled_variant_means_what_its_file_says_and_no_option_else(file: Any) -> None:
    said = yaml.safe_load(file.read_text())
    config = VariantConfig(**said | {"where": Where[said.get("where", "all")]})
    assert plain(config) == {"p": None, **DEFAULTS, **said}


# Every option set beside each dropout: the identity of the variant, as runs that exist already have it.
WITH_EVERY_OPTION = {
    "stock": "7e11b4801b86",
    "byte_mask": "c6dd90f8bf3a",
    "hooks": "4366f2bdf20e",
    "packed": "75b38507a1dc",
    "forward_unpack": "a8810305a50b",
    "seeded": "76f32f7b3565",
}


@each_dropout
def test_options_that_a_dropout_does_not_take_are_no_part_of_its_identity(dropout: str) -> None:
    config = VariantConfig(name="any", dropout=dropout, p=0.25, **OTHERS)
    assert digest_of_settings(plain(config)) == WITH_EVERY_OPTION[dropout]
    defaults = {key: DEFAULTS[key] for key in DEFAULTS if key not in DROPOUTS[dropout].takes}
    assert defaults.items() <= plain(config).items()
    assert config.replacing.keys() == set(DROPOUTS[dropout].takes)
