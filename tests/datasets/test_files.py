"""Files of a split: the rows that a person sees in them, or one line with the file and the reason."""

import csv
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pmexp import datasets
from pmexp.config import DatasetConfig, DatasetKind, Objective
from pmexp.datasets.base import Dataset
from pmexp.errors import UserError

ODD_WORDS = [
    "null", "NA", "N/A", "n/a", "nan", "NaN", "None", "#N/A", "-nan", "<NA>", "007", "1e5", "1.50", "+1", "true",
    "2026-01-02", "1,000", " x ", "-", 'He said "no".', '"', '"slow', 'slow"', "a\tb", "a\nb", "é\u2028\x85", "\ufeff",
]  # fmt: skip


def load(folder: Path, **options: Any) -> Dataset:
    keys = {"name": "set", "kind": DatasetKind.text, "text_columns": ["text"], "val_fraction": 0.5}
    return datasets.load(DatasetConfig(path=str(folder), **(keys | options)))


def error_of(folder: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(folder, **options)
    said = str(caught.value)
    assert said.isprintable(), said
    return said


def separated(
    rows: list[tuple[str, ...]], delimiter: str, quoting: Any = csv.QUOTE_MINIMAL, end: str = "\n"
) -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows(rows)
    return stream.getvalue()


def rows_of(texts: list[str]) -> list[tuple[str, str]]:
    return [("text", "label"), *((text, str(row % 2)) for row, text in enumerate(texts))]


def raw(rows: list[tuple[str, str]], end: str = "\n") -> str:
    """Returns the rows as GLUE writes tsv, without any quoting."""
    return "".join("\t".join(row) + end for row in rows)


def write_folder(folder: Path, name: str, content: str | bytes) -> Path:
    """The same file as train and dev: nothing is carved, so all rows come back in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem in ("train", "dev"):
        data = content.encode() if isinstance(content, str) else content
        (folder / f"{stem}.{name}").write_bytes(data)
    return folder


def parquet(texts: list[Any], labels: list[Any] | None = None) -> bytes:
    stream = io.BytesIO()
    labels = [row % 2 for row in range(len(texts))] if labels is None else labels
    pd.DataFrame({"text": texts, "label": labels}).to_parquet(stream)
    return stream.getvalue()


def json_lines(texts: list[str]) -> str:
    return "".join(json.dumps({"text": t, "label": row % 2}) + "\n" for row, t in enumerate(texts))


SHAPES: dict[str, tuple[str, Callable[[list[str]], str | bytes]]] = {
    "csv": ("csv", lambda texts: separated(rows_of(texts), ",")),
    "csv, all quoted": ("csv", lambda texts: separated(rows_of(texts), ",", csv.QUOTE_ALL)),
    "csv, CRLF": ("csv", lambda texts: separated(rows_of(texts), ",", end="\r\n")),
    "csv, CR": ("csv", lambda texts: separated(rows_of(texts), ",", csv.QUOTE_ALL, end="\r")),
    "csv, BOM": ("csv", lambda texts: "\ufeff" + separated(rows_of(texts), ",")),
    "csv, blank lines": ("csv", lambda texts: "\n" + separated(rows_of(texts), ",") + "\n\n"),
    "csv, UTF-16": ("csv", lambda texts: separated(rows_of(texts), ",").encode("utf-16")),
    "csv, UTF-16 without BOM": ("csv", lambda texts: separated(rows_of(texts), ",").encode("utf-16-le")),
    "csv, Latin-1": ("csv", lambda texts: separated(rows_of(texts), ",").encode("latin-1", "replace")),
    "csv, semicolons": ("csv", lambda texts: separated(rows_of(texts), ";", csv.QUOTE_ALL)),
    "csv by pandas": ("csv", lambda texts: pd.DataFrame(rows_of(texts)[1:], columns=["text", "label"]).to_csv(index=False)),
    "csv by pandas, index": ("csv", lambda texts: pd.DataFrame(rows_of(texts)[1:], columns=["text", "label"]).to_csv()),
    "csv, no line end": ("csv", lambda texts: separated(rows_of(texts), ",").removesuffix("\n")),
    "csv, ragged": ("csv", lambda texts: separated([*rows_of(texts), ("one",)], ",")),
    "csv, column twice": ("csv", lambda texts: separated([(a, b, b) for a, b in rows_of(texts)], ",")),
    "csv, tabs": ("csv", lambda texts: separated(rows_of(texts), "\t", csv.QUOTE_ALL)),
    "csv, cut": ("csv", lambda texts: separated(rows_of(texts), ",", csv.QUOTE_ALL)[:-2]),
    "tsv, quoted": ("tsv", lambda texts: separated(rows_of(texts), "\t")),
    "tsv, all quoted": ("tsv", lambda texts: separated(rows_of(texts), "\t", csv.QUOTE_ALL)),
    "tsv, quoted, CRLF": ("tsv", lambda texts: separated(rows_of(texts), "\t", end="\r\n")),
    "tsv by pandas": ("tsv", lambda texts: pd.DataFrame(rows_of(texts)[1:], columns=["text", "label"]).to_csv(sep="\t", index=False)),
    "json lines": ("jsonl", json_lines),
    "json lines, BOM": ("jsonl", lambda texts: "\ufeff" + json_lines(texts)),
    "json lines, blank lines": ("jsonl", lambda texts: "\n" + json_lines(texts).replace("\n", "\r\n\r\n")),
    "json lines, UTF-8": ("jsonl", lambda texts: "".join(json.dumps({"text": t, "label": row % 2}, ensure_ascii=False) + "\n" for row, t in enumerate(texts))),
    "json lines named json": ("json", json_lines),
    "json": ("json", lambda texts: json.dumps([{"text": t, "label": row % 2} for row, t in enumerate(texts)])),
    "json, indented": ("json", lambda texts: json.dumps([{"label": row % 2, "text": t} for row, t in enumerate(texts)], indent=1)),
    "json, UTF-16": ("json", lambda texts: json.dumps([{"text": t, "label": 0} for t in texts]).encode("utf-16")),
    "json, columns": ("json", lambda texts: json.dumps({"text": texts, "label": [row % 2 for row in range(len(texts))]})),
    "parquet": ("parquet", parquet),
    "parquet, cut": ("parquet", lambda texts: parquet(texts)[:-5]),
}  # fmt: skip

WELL_FORMED = [
    "csv", "csv, all quoted", "csv, CRLF", "csv, CR", "csv, BOM", "csv, blank lines", "csv by pandas", "csv by pandas, index",
    "csv, no line end", "tsv, quoted", "tsv, all quoted", "tsv, quoted, CRLF", "tsv by pandas", "json lines",
    "json lines, BOM", "json lines, blank lines", "json lines, UTF-8", "json lines named json", "json", "json, indented", "parquet",
]  # fmt: skip

FOLDERS = st.text("ab[]*?{}!,^%@~:#&=+ $'\"\\", min_size=1, max_size=6).filter(lambda name: name.strip())
TEXTS = st.lists(
    st.one_of(st.sampled_from(ODD_WORDS), st.text("ab\"', \té", max_size=6)), min_size=2, max_size=6
)


@given(texts=TEXTS, shape=st.sampled_from(sorted(SHAPES)), name=FOLDERS)
@example(texts=["a", "\ufeff"], shape="csv, Latin-1", name="a")
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_file_gives_the_rows_that_a_person_sees_or_one_line(
    texts: list[str], shape: str, name: str, tmp_path: Path
) -> None:
    kind, write = SHAPES[shape]
    folder = write_folder(tmp_path / f"{name}x", kind, write(texts))
    dataset, said = None, ""
    try:
        dataset = load(folder)
    except UserError as error:
        said = str(error)
    finally:
        shutil.rmtree(folder)
    if dataset is None:
        assert said.isprintable() and str(folder) in said
        assert shape not in WELL_FORMED or ("" in texts and "json" not in shape)
    else:
        if shape == "csv, Latin-1":  # a character that it lacks was written as "?"
            texts = [text.encode("latin-1", "replace").decode("latin-1") for text in texts]
        assert dataset.train.inputs == dataset.val.inputs == [(text,) for text in texts]
        assert dataset.train.labels.tolist() == [row % 2 for row in range(len(texts))]


@given(texts=st.lists(st.text("ab\"', \u2028é", min_size=1, max_size=6), min_size=1, max_size=6))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_tsv_without_quoting_and_with_a_lone_quote_keeps_its_rows(texts: list[str], tmp_path: Path) -> None:
    dataset = load(write_folder(tmp_path, "tsv", raw(rows_of(['"', *texts]))))
    assert dataset.train.inputs == [('"',), *((text,) for text in texts)]


@pytest.mark.parametrize("shape", WELL_FORMED)
def test_text_stays_text(shape: str, tmp_path: Path) -> None:
    kind, write = SHAPES[shape]
    dataset = load(write_folder(tmp_path, kind, write(ODD_WORDS)))
    assert dataset.train.inputs == [(word,) for word in ODD_WORDS]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("csv", "text,label\na,0\n,1\n"),
        ("csv", 'text,label\na,0\n"",1\n'),
        ("tsv", "text\tlabel\na\t0\n\t1\n"),
        ("jsonl", '{"text": "a", "label": 0}\n{"text": null, "label": 1}\n'),
        ("jsonl", '{"text": "a", "label": 0}\n{"label": 1}\n'),
        ("json", '[{"text": "a", "label": 0}, {"text": null, "label": 1}]'),
        ("parquet", parquet(["a", None])),
    ],
)
def test_a_missing_text_is_named_by_file_and_row(kind: str, content: str | bytes, tmp_path: Path) -> None:
    file = write_folder(tmp_path, kind, content) / f"train.{kind}"
    assert f"text in the train split ({file}, row 2) is missing" in error_of(tmp_path)


@pytest.mark.parametrize(
    ("kind", "content", "reason"),
    [
        ("csv", "text,label\ncafé,0\n".encode("latin-1"), "line 2 has the byte 0xe9, which is no UTF-8; save it as UTF-8"),
        ("csv", "text,label\na,0\n".encode("utf-16"), "it is UTF-16; save it as UTF-8"),
        ("csv", "text,label\na,0\n".encode("utf-16-le"), "line 1 holds a NUL character"),
        ("csv", "text,label\na\0,0\n", "line 2 holds a NUL character"),
        ("csv", "", "it is empty"),
        ("csv", "\n\n", "it is empty"),
        ("csv", "text,label\na,0\nb,c,1\n", "line 3 ends a row of 3 cells, the header has 2"),
        ("csv", "text,label\na,0\ntext,label\nb,1\n", "line 3 repeats the header; leave it out"),
        ("csv", 'text,label\n"a"b,0\n', "line 2: ',' expected after '\"'"),
        ("csv", 'text,label\n"a,0\nb,1\n', "unexpected end of data"),
        ("tsv", "text\tlabel\na\n", "line 2 ends a row of 1 cell, the header has 2"),
        ("jsonl", '{"text": "a", "label": 0}\n{"text": \n', "line 2: Expecting value at column"),
        ("jsonl", '{"text": "a", "text": "b", "label": 0}\n', "line 1: an object has 'text' twice"),
        ("jsonl", "7\n", "line 1 is no object of columns"),
        ("json", '[{"text": "a", "label": 0}, 7]', "row 2 is no object of columns"),
        ("json", "[1\n 2]", "Expecting ',' delimiter at line 2 column 2"),
        ("json", "[" * 100_000, "nested too deeply"),
        ("parquet", b"not parquet", "magic bytes"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line_with_the_innermost_reason(
    kind: str, content: str | bytes, reason: str, tmp_path: Path
) -> None:
    said = error_of(write_folder(tmp_path, kind, content))
    assert reason in said and f"{tmp_path}/train.{kind} cannot be read as {kind} (" in said


@pytest.mark.parametrize(
    ("kind", "content", "reason"),
    [
        ("csv", "text,label\n", "the train split ({folder}/train.csv) has no rows"),
        ("jsonl", "", "the train split ({folder}/train.jsonl) has no rows"),
        ("csv", "text,label,text\na,0,b\n", "{folder}/train.csv has two columns 'text'; rename or remove one"),
        ("csv", "text;label\na;0\n", "it has text;label: are its cells separated by ';'? csv takes ',' and tsv tabs"),
        ("csv", "title,label\na,0\n", "dataset.text_columns: 'text' is not a column of the train split"),
        ("jsonl", '{"text": 7, "label": 0}\n', "(a file, row 1) is no text but of type int"),
        ("jsonl", '{"text": ["a"], "label": 0}\n', "(a file, row 1) is no text but of type list"),
        ("jsonl", '{"text": "\\ud800", "label": 0}\n', "(a file, row 1) holds half of a character"),
    ],
)  # fmt: skip
def test_what_is_no_table_of_texts_is_one_line(kind: str, content: str, reason: str, tmp_path: Path) -> None:
    write_folder(tmp_path, kind, content.replace('"label": 0}\n', '"label": 0}\n{"text": "b", "label": 1}\n'))
    expected = reason.format(folder=tmp_path).replace("a file", f"{tmp_path}/train.{kind}")
    assert expected in error_of(tmp_path)


def test_a_file_that_may_not_be_read_is_one_line(tmp_path: Path) -> None:
    write_folder(tmp_path, "csv", "text,label\na,0\n")
    (tmp_path / "train.csv").unlink()
    (tmp_path / "train.csv").symlink_to("/proc/self/mem")  # a regular file that even root cannot read here
    assert "train.csv cannot be read" in error_of(tmp_path)
    assert "is not a folder" in error_of(tmp_path / "train.csv")
    assert "is not a folder" in error_of(tmp_path / ("x" * 5000))


def test_quotes_of_a_tsv_are_marks_or_characters_in_all_of_its_files(tmp_path: Path) -> None:
    """Lone quotes, as in GLUE's files, swallow no row, even where they happen to pair."""
    rows = rows_of(['"slow', "b", 'end"', '"whole"'])
    write_folder(tmp_path, "tsv", raw(rows))
    assert load(tmp_path).train.inputs == [('"slow',), ("b",), ('end"',), ('"whole"',)]
    (tmp_path / "train.tsv").write_text(raw(rows_of(['"whole"', "b"])))
    data = load(tmp_path)
    assert data.train.inputs == [('"whole"',), ("b",)] and ('"slow',) in data.val.inputs
    (tmp_path / "dev.tsv").unlink()
    (tmp_path / "train.tsv").write_text(raw(rows_of(['"whole"', "b", "c", "d"])))
    assert ("whole",) in [*(data := load(tmp_path)).train.inputs, *data.val.inputs]
    (tmp_path / "dev.tsv").write_text(raw(rows_of(['"slow', "b"])))
    (tmp_path / "test.tsv").write_bytes(b"text\tlabel\ncaf\xe9\t0\n")
    assert "test.tsv cannot be read as tsv (line 2 has the byte 0xe9" in error_of(tmp_path)
    (tmp_path / "test.tsv").unlink()
    for needs_marks in ("a\tb", 'say "no"'):
        (tmp_path / "train.tsv").write_text(separated(rows_of([needs_marks, "b"]), "\t"))
        assert f"{tmp_path}/train.tsv has quotes around cells as csv has them, and" in error_of(tmp_path)


def test_a_long_cell_is_whole(tmp_path: Path) -> None:
    long = "a b " * 100_000
    data = load(write_folder(tmp_path, "csv", separated(rows_of([long, "b"]), ",")))
    assert data.train.inputs == [(long,), ("b",)]
    assert csv.field_size_limit() == 131072


@pytest.mark.parametrize(
    "name",
    [
        "[ab]",
        "a*",
        "a?",
        "{a,b}",
        "**",
        "a::b",
        "x:/b",
        "a@b",
        "~a",
        "50%",
        "label=1",
        "a,b",
        "a\nb",
        "$HOME",
    ],
)
def test_a_path_names_itself_and_no_other_folder(name: str, tmp_path: Path) -> None:
    for decoy in ("a", "b", "ab", "ax"):
        write_folder(tmp_path / decoy, "csv", separated(rows_of(["wrong", "folder"]), ","))
    for kind in ("csv", "parquet"):
        folder = tmp_path / kind / name
        write_folder(folder, kind, SHAPES[kind][1](["right", "one"]))
        data = load(folder)
        assert data.train.inputs == [("right",), ("one",)] and data.train.labels.tolist() == [0, 1]
    error_of(tmp_path / "c" / name)


def test_a_relative_folder_that_begins_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "~nobody", "csv", separated(rows_of(["a", "b"]), ","))
    assert load(Path("~nobody")).train.inputs == [("a",), ("b",)]


def test_a_file_replaced_with_its_old_time_and_size_is_read_anew(tmp_path: Path) -> None:
    write_folder(tmp_path, "csv", "text,label\nold,0\nrow,1\n")
    before, stat = load(tmp_path), (tmp_path / "train.csv").stat()
    write_folder(tmp_path, "csv", "text,label\nnew,0\nrow,1\n")
    for stem in ("train", "dev"):
        os.utime(tmp_path / f"{stem}.csv", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = load(tmp_path)
    assert (before.train.inputs[0], after.train.inputs[0]) == (("old",), ("new",))
    assert before.digest != after.digest


def test_what_is_left_out_of_a_folder_is_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_folder(tmp_path, "tsv", raw(rows_of(["a", "b"])))
    assert load(tmp_path).left_out == ""
    for name in ("dev_matched.tsv", "dev_mismatched.tsv", "eval.tsv", "train-1.tsv"):
        (tmp_path / name).write_text("x")
    (tmp_path / "original").mkdir()
    caplog.clear()
    with caplog.at_level("INFO", logger="pmexp"):
        data = load(tmp_path)
    assert data.left_out == (
        f"left out 5 of the 7 entries of {tmp_path}: dev_matched.tsv, dev_mismatched.tsv, eval.tsv, original, "
        "train-1.tsv (files of type csv|tsv|jsonl|json|parquet are taken that are named train, "
        "validation|valid|dev|val, test)"
    )
    assert caplog.messages == [
        f"dataset=set: {said}" for said in (data.left_out, f"{data.doubts}; look at its files")
    ]
    assert data.record("data")["data_left_out"] == data.left_out
    (tmp_path / "dev.tsv").rename(tmp_path / "valid.tsv")
    assert len(load(tmp_path).val) == len(data.val)
    (tmp_path / "valid.tsv").rename(tmp_path / "dev_2.tsv")
    caplog.clear()
    rows = [f"{text}\t{number % 2}\n" for number, text in enumerate("abcdefgh")]
    (tmp_path / "train.tsv").write_text("text\tlabel\n" + "".join(rows))
    data = load(tmp_path)
    assert (len(data.train), len(data.val)) == (4, 4)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"dataset=set: has no validation split, and 0.5 of train is taken for it; {data.left_out}"
    ]
    (tmp_path / "train.tsv").rename(tmp_path / "Train.tsv")
    assert "has no train split" in (said := error_of(tmp_path)) and "Train.tsv" in said


def test_columns_of_texts_are_one_or_two(tmp_path: Path) -> None:
    write_folder(tmp_path, "csv", "a,b,c,label\nx,y,z,0\nx,y,z,1\n")
    for columns in ([], ["a", "b", "c"]):
        assert "must name one column of texts, or two of pairs" in error_of(tmp_path, text_columns=columns)


LINES: dict[str, Any] = {
    "kind": DatasetKind.language,
    "objective": Objective.causal_lm,
    "metrics": ["perplexity"],
}


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_running_text_of_any_line_ends(ends: str, tmp_path: Path) -> None:
    lines = ["\u2028 a", "", "null", '"b', "é\x0c\x1c"]
    for stem in ("train", "validation"):
        (tmp_path / f"{stem}.txt").write_bytes(("\ufeff" + ends.join([*lines, ""])).encode())
    dataset = load(tmp_path, **LINES)
    assert dataset.train.inputs == [(line,) for line in lines]
    (tmp_path / "train.txt").write_bytes(b"a\ncaf\xe9\n")
    assert "line 2 has the byte 0xe9" in error_of(tmp_path, **LINES)
    (tmp_path / "train.txt").write_bytes(b"")
    assert "has no rows" in error_of(tmp_path, **LINES)
    (tmp_path / "train.txt").unlink()
    (tmp_path / "train.csv").write_text('text\n""\nnull\n')
    assert load(tmp_path, **LINES).train.inputs == [("",), ("null",)]
    (tmp_path / "train.csv").unlink()
    (tmp_path / "train.parquet").write_bytes(parquet(["a", None]))
    assert "row 2) is missing" in error_of(tmp_path, **LINES)
