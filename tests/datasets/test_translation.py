"""Pairs of texts: local folders in the layouts of the hub's sets and of plain tables, and the messages of Django."""

import gettext
import io
import json
from pathlib import Path

import pytest

from pmexp import datasets
from pmexp.config import DatasetConfig, DatasetKind, Objective
from pmexp.datasets import django_messages
from pmexp.datasets.base import Dataset
from pmexp.errors import UserError

PAIRS = [
    ("One, two.", "Eins, zwei."),
    ("null", "07"),
    ('He said "no".', "Er sagte „nein“."),
    ("A\tb", ""),
] * 5


def load(kind: DatasetKind, path: Path | None = None, **options: object) -> Dataset:
    common = {"objective": Objective.seq2seq, "metrics": ["bleu"], "path": str(path) if path else None}
    return datasets.load(DatasetConfig(name="set", kind=kind, **(common | options)))  # type: ignore[arg-type]


def test_pairs_of_a_table_and_of_mappings_are_the_same(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        rows = [{"en": en, "de": de, "note": 1} for en, de in PAIRS]
        (tmp_path / f"{split}.json").write_text(json.dumps(rows))
        mapped = [json.dumps({"translation": {"en": en, "de": de}}) for en, de in PAIRS]
        (tmp_path / "hub").mkdir(exist_ok=True)
        (tmp_path / "hub" / f"{split}.jsonl").write_text("\n".join(mapped))
    plain = load(DatasetKind.translation, tmp_path, text_columns=["en", "de"])
    of_hub = load(
        DatasetKind.translation, tmp_path / "hub", text_columns=["translation.en", "translation.de"]
    )
    for data in (plain, of_hub):
        assert data.test is not None and not data.classes and data.digest.startswith("sha256:")
        assert data.train.inputs == data.val.inputs == data.test.inputs == PAIRS


def test_a_missing_validation_split_is_carved_from_train(tmp_path: Path) -> None:
    lines = [f"{number},{number + 1}" for number in range(20)]
    (tmp_path / "train.csv").write_text("\n".join(["en,de", *lines]))
    one, two = (
        load(DatasetKind.translation, tmp_path, text_columns=["en", "de"], val_fraction=0.2) for _ in range(2)
    )
    assert (len(one.train), len(one.val), one.test) == (16, 4, None) and one.val.inputs == two.val.inputs
    assert sorted([*one.train.inputs, *one.val.inputs]) == sorted(tuple(line.split(",")) for line in lines)


@pytest.mark.parametrize(
    ("columns", "row", "message"),
    [
        (["en"], {}, r"text_columns: \['en'\] must name two columns"),
        (["en", "fr"], {"en": "a"}, r"'fr' is not a column of the train split .* it has en"),
        (["en.x", "en"], {"en": "a"}, r"en\.x in the train split .*row 1\) is missing"),
        (["t.en", "t.de"], {"t": {"en": "a"}}, r"t\.de in the train split .*row 1\) is missing"),
        (["t.en", "t.de"], {"t": {"en": "a", "de": 3}}, r"t\.de .*row 1\) is no text but of type int"),
    ],
)
def test_what_is_no_pair_is_one_line(
    columns: list[str], row: dict[str, object], message: str, tmp_path: Path
) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps(row))
    with pytest.raises(UserError, match=message):
        load(DatasetKind.translation, tmp_path, text_columns=columns)


def test_djangos_messages_are_real_pairs_in_three_disjoint_splits() -> None:
    data = load(DatasetKind.django_messages)
    assert data.test is not None and data.digest.startswith("sha256:")
    splits = [list(split.inputs) for split in (data.train, data.val, data.test)]
    assert [len(split) for split in splits] == [627, 70, 78]
    pairs = dict(pair for split in splits for pair in split)
    assert len(pairs) == 775 and all(source and target for source, target in pairs.items())
    catalogs = [
        gettext.GNUTranslations(io.BytesIO((Path(data.origin) / name).read_bytes()))
        for name in django_messages.FILES
    ]
    others = {source for source, target in pairs.items() if target not in _translations(catalogs, source)}
    assert others == {"Dec.", "Oct.", "{}st", "{}nd", "{}rd", "{}th"}  # which it asks for by a context


def _translations(catalogs: list[gettext.GNUTranslations], source: str) -> set[str]:
    """What gettext itself says, also where the source has a plural."""
    return {text for each in catalogs for text in (each.gettext(source), each.ngettext(source, "", 1))}


def test_a_damaged_catalog_is_named(tmp_path: Path) -> None:
    for name in django_messages.FILES:
        (tmp_path / name).write_bytes(b"nothing of gettext, and longer than a header")
    with pytest.raises(UserError, match=r"conf\.de\.mo cannot be read \(it is no catalog of gettext\)"):
        load(DatasetKind.django_messages, tmp_path)
    (tmp_path / "conf.de.mo").write_bytes(b"\xde\x12\x04\x95" + bytes(8))
    with pytest.raises(UserError, match=r"conf\.de\.mo cannot be read"):
        load(DatasetKind.django_messages, tmp_path)
