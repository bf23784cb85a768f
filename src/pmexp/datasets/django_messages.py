"""Loads what Django says in English and in German: sentences, labels and names of its message catalogs.

The wheel of Django carries them, as compiled catalogs of gettext. Each text is taken once; a fixed tenth of
them, in the order of the English texts, is the test split.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

from pmexp.config import DatasetConfig
from pmexp.datasets.base import Dataset, Split, carve
from pmexp.datasets.tables import folder_of
from pmexp.datasets.translation import pairs_of
from pmexp.datasets.wheels import Wheel
from pmexp.errors import UserError, why_unread

_APPS = (
    *("admin", "admindocs", "auth", "contenttypes", "flatpages", "gis", "humanize", "postgres", "redirects"),
    *("sessions", "sites"),
)
_PLACES = {"conf": "django/conf"} | {app: f"django/contrib/{app}" for app in _APPS}
_WHEEL = Wheel(
    "Django==5.2.8",
    "sha256:37e687f7bd73ddf043e2b6b97cfe02fcbb11f2dbb3adccc6a2b18c6daa054d7f",
    {f"{name}.de.mo": f"{place}/locale/de/LC_MESSAGES/django.mo" for name, place in _PLACES.items()},
)
FILES = tuple(_WHEEL.files)
_MAGIC = 0x950412DE  # begins gettext's compiled catalogs, here with the lowest byte first
_TEST_EVERY = 10  # texts


def load(config: DatasetConfig) -> Dataset:
    """Returns Django's messages in two languages. Raises UserError where they cannot be had."""
    folder = folder_of(config.path) if config.path else _WHEEL.unpacked("django-messages")
    german: dict[str, str] = {}
    for name in FILES:
        for source, target in _messages(folder / name):
            german.setdefault(source, target)
    rows = sorted(german.items())
    test = [pair for row, pair in enumerate(rows) if row % _TEST_EVERY == 0]
    rest = [pair for row, pair in enumerate(rows) if row % _TEST_EVERY]
    train, val = carve(_split(rest), config.val_fraction, "dataset.val_fraction")
    return Dataset(train, val, _split(test), [], origin=str(folder))


def _split(pairs: list[tuple[str, str]]) -> Split:
    return pairs_of([source for source, _ in pairs], [target for _, target in pairs])


def _messages(file: Path) -> Iterator[tuple[str, str]]:
    """Yields the messages of a compiled catalog with their translations, of a plural the singular.

    Raises UserError where the file is none.
    """
    try:
        catalog = file.read_bytes()
        magic, _, count, sources, targets = struct.unpack_from("<5I", catalog)
        if magic != _MAGIC:
            raise ValueError("it is no catalog of gettext")
        for row in range(count):
            source, target = (_text(catalog, table + 8 * row) for table in (sources, targets))
            if source and target:  # the empty message has the catalog's own header
                yield source.rpartition("\x04")[2], target  # a context stands before it
    except (OSError, ValueError, struct.error) as error:
        raise UserError(
            f"dataset.path: {file} cannot be read ({why_unread(error)}); dataset=django-messages needs "
            f"{', '.join(FILES)} there"
        ) from None


def _text(catalog: bytes, entry: int) -> str:
    length, start = struct.unpack_from("<2I", catalog, entry)
    return catalog[start : start + length].partition(b"\0")[0].decode("utf-8")
