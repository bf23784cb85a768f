"""GLUE's files as its server hands them out, and predictions as it takes them."""

from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification

from pmexp import datasets
from pmexp.command.schema import conf_folder
from pmexp.config import DatasetConfig, DatasetKind
from pmexp.data import main
from pmexp.datasets.glue import FILE_NAMES, write_glue_predictions
from pmexp.models.text import train_tokenizer
from small_runs import Runs

HEAD = "#1 ID\t#2 ID\t#1 String\t#2 String"
PAIRS = [
    ("1", 'Amrozi accused his brother , whom he called " the witness " .', "Referring to him , he accused ."),
    ("0", "The shares rose 11 % .", 'Shares " fell .'),
]


def mrpc(folder: Path) -> None:
    """Writes MRPC with the byte order mark, the unbalanced quotes and the column names of the real files."""
    for name in ("train", "dev"):
        rows = [f"{label}\t1\t2\t{one}\t{two}" for label, one, two in PAIRS]
        (folder / f"{name}.tsv").write_text("\n".join([f"\ufeffQuality\t{HEAD}", *rows]) + "\n")
    rows = [f"{index}\t1\t2\t{one}\t{two}" for index, (_, one, two) in enumerate(PAIRS)]
    (folder / "test.tsv").write_text("\n".join([f"index\t{HEAD}", *rows]) + "\n")


def test_mrpc_as_the_glue_server_hands_it_out(tmp_path: Path) -> None:
    mrpc(tmp_path)
    config = DatasetConfig(
        name="mrpc",
        kind=DatasetKind.text,
        path=str(tmp_path),
        text_columns=["#1 String", "#2 String"],
        label_column="Quality",
    )
    data = datasets.load(config)
    assert data.train.inputs == [(one, two) for _, one, two in PAIRS]
    assert data.train.labels.tolist() == data.val.labels.tolist() == [1, 0]
    assert data.test is None and data.unlabelled_test is not None
    assert data.unlabelled_test.inputs == data.train.inputs
    assert data.unlabelled_test.labels.tolist() == [-1, -1]


def test_the_command_that_mrpc_yaml_documents(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    mrpc(tmp_path)
    head = (conf_folder() / "dataset" / "mrpc.yaml").read_text()
    columns, label = 'dataset.text_columns=["#1 String","#2 String"]', "dataset.label_column=Quality"
    assert f"dataset.path=MRPC '{columns}' {label}" in head
    assert main(["dataset=mrpc", f"dataset.path={tmp_path}", columns, label]) == 0
    assert "test without labels: 2 samples" in capsys.readouterr().out


def test_sst2_as_the_glue_server_hands_it_out(tmp_path: Path) -> None:
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text("sentence\tlabel\nit 's a charming \" journey\t1\nslow .\t0\n")
    (tmp_path / "test.tsv").write_text("index\tsentence\n0\tuneasy mishmash\n")
    config = DatasetConfig(name="sst2", kind=DatasetKind.text, path=str(tmp_path), text_columns=["sentence"])
    data = datasets.load(config)
    assert data.val.inputs == [("it 's a charming \" journey",), ("slow .",)]
    assert data.unlabelled_test is not None and data.unlabelled_test.inputs == [("uneasy mishmash",)]


def test_predictions_are_written_as_the_server_reads_them(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAMES["sst2"]
    write_glue_predictions(file, ["1", "0", "1"])
    assert file.name == "SST-2.tsv" and FILE_NAMES["mrpc"] == "MRPC.tsv"
    assert file.read_bytes() == b"index\tprediction\n0\t1\n1\t0\n2\t1\n"
    assert [f.name for f in tmp_path.iterdir()] == ["SST-2.tsv"]


def earnings(folder: Path) -> list[tuple[str, ...]]:
    """SST-2's files with real texts: is a document of Reuters-R8 about earnings? The texts of train."""
    data = datasets.load(DatasetConfig(name="reuters-r8", kind=DatasetKind.reuters_r8, text_columns=["text"]))
    assert isinstance(data.train.inputs, list) and data.test and isinstance(data.test.inputs, list)
    folder.mkdir()
    earn, texts = data.classes.index("earn"), [text for (text,) in data.train.inputs]
    lines = [f"{text}\t{int(label == earn)}" for text, label in zip(texts, data.train.labels, strict=True)]
    for name, some in (("train", lines[:800]), ("dev", lines[800:1000])):
        (folder / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *some]) + "\n")
    unlabelled = [f"{index}\t{text}" for index, (text,) in enumerate(data.test.inputs[:50])]
    (folder / "test.tsv").write_text("\n".join(["index\tsentence", *unlabelled]) + "\n")
    return data.train.inputs[:800]


def checkpoint(folder: Path, texts: list[tuple[str, ...]]) -> None:
    """What save_pretrained of a small BERT with its tokenizer leaves."""
    tokenizer = train_tokenizer(datasets.base.Split(texts, torch.zeros(len(texts)).long().numpy()), 800)
    small = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )  # fmt: skip
    torch.manual_seed(1)
    BertForSequenceClassification(small).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_a_folder_of_files_and_a_checkpoint_are_fine_tuned_by_the_documented_command(
    runs: Runs, tmp_path: Path
) -> None:
    checkpoint(tmp_path / "bert", earnings(tmp_path / "SST-2"))
    head = (conf_folder() / "task" / "bert-base-sst2.yaml").read_text()
    assert "pmexp train task=bert-base-sst2 dataset.path=SST-2 model.path=bert variant=pm-drop" in head
    arguments = ["task=bert-base-sst2", f"dataset.path={tmp_path}/SST-2", f"model.path={tmp_path}/bert"]
    small = ["train.lr=0.003", "train.epochs=4", "dataset.max_length=48", "train.threads=1", "tracking=off"]
    code, _, err = runs.train(*arguments, "variant=pm-drop", *small)
    assert code == 0, err
    summary = runs.summaries()["pm-drop-s0"]
    assert summary["metrics"]["val/accuracy"] > 0.8 and summary["environment"]["data"] == f"{tmp_path}/SST-2"
    (folder,) = runs.run_folders()
    predicted = (folder / "artifacts" / "SST-2.tsv").read_text().splitlines()
    assert predicted[0] == "index\tprediction" and len(predicted) == 51
    assert {line.split("\t")[1] for line in predicted[1:]} == {"0", "1"}
