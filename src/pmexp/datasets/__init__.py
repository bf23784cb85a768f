"""Loads real data only: a missing dataset is a UserError that says what to fetch and where to put it."""

import logging
from collections.abc import Callable
from dataclasses import replace

from pmexp.config import DatasetConfig, DatasetKind
from pmexp.config.complete import complete
from pmexp.datasets import (
    digit_captions,
    digits,
    django_messages,
    image_text,
    imagenet,
    language,
    listops,
    own,
    reuters_r8,
    tagged,
    text,
    translation,
)
from pmexp.datasets.base import Dataset
from pmexp.datasets.digest import digest_of_data, digest_where_it_lies
from pmexp.datasets.doubts import doubts
from pmexp.errors import UserError
from pmexp.metrics.entities import is_tag

log = logging.getLogger(__name__)
_LOADERS: dict[DatasetKind, Callable[[DatasetConfig], Dataset]] = {
    DatasetKind.digits: digits.load,
    DatasetKind.reuters_r8: reuters_r8.load,
    DatasetKind.text: text.load,
    DatasetKind.language: language.load,
    DatasetKind.imagenet: imagenet.load,
    DatasetKind.listops: listops.load,
    DatasetKind.translation: translation.load,
    DatasetKind.django_messages: django_messages.load,
    DatasetKind.image_text: image_text.load,
    DatasetKind.digit_captions: digit_captions.load,
    DatasetKind.tagged: tagged.load,
}
LOADERS = complete(_LOADERS, DatasetKind)


def load(config: DatasetConfig) -> Dataset:
    """The dataset with its three splits. Raises UserError when it cannot be had."""
    digest = digest_of_data(config)  # taken first, so that a change while the data is read shows later
    dataset = own.load(config) if config.loader else LOADERS[config.kind](config)
    if "f1" in config.metrics and len(dataset.classes) != 2:
        raise UserError(
            f"dataset.metrics: f1 is for two classes, dataset={config.name} has {len(dataset.classes)}; "
            "leave it out"
        )
    wrong = [tag for tag in dataset.classes if not is_tag(tag)] if "entity_f1" in config.metrics else []
    if wrong:
        raise UserError(
            f"dataset.metrics: entity_f1 reads tags such as B-PER, I-PER and O, dataset={config.name} has "
            f"{wrong[0]!r}; write such tags, or set dataset.metrics=[accuracy]"
        )
    digest = digest or dataset.digest or digest_where_it_lies(config, dataset.origin)
    if doubt := doubts(dataset):
        log.warning("dataset=%s: %s; look at its files", config.name, doubt)
    return replace(dataset, digest=digest, doubts=doubt)
