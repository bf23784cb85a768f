"""`python -m pmexp.data`: a dataset made ready ahead, found again without network, or one clear line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from own_files import write
from pmexp import data, datasets
from pmexp.config import DatasetConfig, DatasetKind, Objective
from pmexp.errors import UserError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LISTOPS = [
    "dataset=listops",
    "dataset.max_length=256",
    "dataset.trees.samples=100",
    "dataset.trees.min_length=30",
    "dataset.trees.max_length=90",
]


def test_listops_is_generated_once_and_then_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("PMEXP_CACHE", str(tmp_path))
    with caplog.at_level("INFO", logger="pmexp"):
        assert data.main(LISTOPS) == 0
    assert caplog.messages == ["listops: 1 of 1 shards, about 0 s left"]
    folder = next(path for path in (tmp_path / "listops").iterdir() if path.is_dir())
    first = capsys.readouterr().out
    assert first.splitlines() == [
        f"dataset=listops: {folder}",
        "  train: 80 samples",
        "  val: 10 samples",
        "  test: 10 samples",
        "  classes: 10 (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)",
    ]
    caplog.clear()
    assert data.main(LISTOPS) == 0
    assert capsys.readouterr().out == first and not caplog.messages
    moved = shutil.copytree(folder, tmp_path / "other node")
    assert data.main([*LISTOPS, f"dataset.path={moved}"]) == 0
    assert str(moved) in capsys.readouterr().out


SPLITS = {"train": [("good", "pos"), ("bad", "neg")] * 4, "val": [("well", "pos"), ("ill", "neg")]}
ONE_CLASS = "every row of the test split is of the class 'pos'"
TWO_LABELS = "5 of 9 samples of the train split are there with another label too"
IN_TRAIN = "{} samples of the test split are in the train split too"


@pytest.mark.parametrize(
    ("changed", "doubt"),
    [
        ({"test": [("fine", "pos"), ("poor", "neg")]}, ""),
        ({"test": [("fine", "pos"), ("nice", "pos")]}, ONE_CLASS),
        ({"test": [("good", "pos"), ("bad", "neg")]}, IN_TRAIN.format("2 of 2")),
        ({"test": [("good", "pos"), ("poor", "neg")]}, IN_TRAIN.format("1 of 2")),
        ({"test": [("good", "pos"), ("poor", "neg"), ("dull", "neg")]}, ""),
        ({"test": [("good", "pos")]}, f"{ONE_CLASS}; {IN_TRAIN.format('1 of 1')}"),
        ({"train": [*SPLITS["train"], ("good", "neg")]}, TWO_LABELS),
        ({"val": [(" ", "pos"), ("", "neg")]}, "every text of the val split is empty"),
    ],
)
def test_what_makes_scores_say_little_is_warned_of_and_on_record(
    changed: dict[str, list[tuple[str, str]]], doubt: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    for name, rows in (SPLITS | changed).items():
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    assert data.main(["sst2", f"dataset.path={tmp_path}", "dataset.text_columns=[text]"]) == 0
    assert "  classes: 2 (neg, pos)\n" in capsys.readouterr().out
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"dataset=sst2: {doubt}; look at its files"] * bool(doubt)
    config = DatasetConfig(name="sst2", kind=DatasetKind.text, path=str(tmp_path), text_columns=["text"])
    assert datasets.load(config).record("data").get("data_doubts", "") == doubt


def test_numbers_have_a_range_and_no_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = f"dataset.path={write(tmp_path, 'jsonl')}"
    assert data.main(["stsb", path, "dataset.text_columns=[text]", "dataset.label_column=number"]) == 0
    printed = capsys.readouterr().out
    assert "classes" not in printed and "  labels: numbers of 0." in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dataset=nothing"], "dataset=nothing: is not an option; allowed are digit-captions, digits"),
        (["seed=1", "dataset=digits"], "seed=1: seed is not a key; did you mean dataset."),
        ([], "dataset: give dataset=NAME"),
        (
            ["--config-dir=no-folder", "dataset=digits"],
            "config_dir: no-folder is no folder; name one with options of your own",
        ),
        (["dataset=digits,sst2"], "dataset=digits,sst2: several values are a sweep; give one at a time"),
        (["dataset=listops", "dataset.trees.max_args=1"], "dataset.trees.max_args: 1 must be at least 2"),
        (
            ["dataset=listops", "dataset.max_length=2000"],
            "dataset.max_length: 2000 must be a multiple of 256",
        ),
        (
            ["dataset=wikitext103", "dataset.path=/nowhere"],
            "dataset.path: /nowhere is not a folder; put train.txt",
        ),
        (["dataset=imagenet1k", "dataset.path=/nowhere"], "dataset.path: /nowhere has no folder train"),
    ],
)
def test_what_cannot_be_had_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert data.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"error: {message}") and err.count("\n") == 1


def test_running_text_keeps_its_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [" ", " = Valkyria Chronicles = ", " Senjō no \u2028 <unk> 3 : \t it 's "]
    for name in ("train", "validation"):
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert data.main(["dataset=wikitext103", f"dataset.path={tmp_path}"]) == 0
    assert "  train: 3 samples\n  val: 3 samples\n" in capsys.readouterr().out
    config = DatasetConfig(
        name="w",
        kind=DatasetKind.language,
        objective=Objective.causal_lm,
        metrics=["perplexity"],
        path=str(tmp_path),
        text_columns=["text"],
    )
    loaded = datasets.load(config)
    assert loaded.train.inputs == [(line,) for line in lines]
    assert loaded.train.labels.shape == (0,) and loaded.classes == []
    (tmp_path / "validation.txt").unlink()
    with pytest.raises(UserError, match=r"has no validation split; put validation\.txt there"):
        datasets.load(config)


@pytest.fixture
def hub_cache(tmp_path: Path) -> Path:
    """What the `datasets` library leaves in its cache when it has fetched MRPC at COMMIT."""
    import datasets as hf

    rows = {"sentence1": ["a"] * 20, "sentence2": ["b"] * 20, "label": [0, 1] * 10, "idx": list(range(20))}
    place = tmp_path / "datasets" / "nyu-mll___glue" / "mrpc" / "0.0.0" / COMMIT
    for split in ("train", "validation", "test"):
        hf.Dataset.from_dict(rows).to_parquet(tmp_path / f"{split}.parquet")
    files = {split: str(tmp_path / f"{split}.parquet") for split in ("train", "validation", "test")}
    builder = hf.load_dataset_builder("parquet", data_files=files, cache_dir=str(tmp_path / "made"))
    builder.download_and_prepare()
    shutil.copytree(builder.cache_dir, place)
    for file in place.glob("parquet-*.arrow"):
        file.rename(place / file.name.replace("parquet-", "glue-"))
    about = json.loads((place / "dataset_info.json").read_text())
    (place / "dataset_info.json").write_text(
        json.dumps(about | {"config_name": "mrpc", "dataset_name": "glue", "builder_name": "glue"})
    )
    return tmp_path / "datasets"


@pytest.mark.slow
def test_a_hub_dataset_is_found_without_network_and_its_commit_is_compared(hub_cache: Path) -> None:
    """All commands in one process of its own: the library reads its environment when it is imported."""
    revisions = [[f"dataset.revision={revision}"] for revision in (COMMIT, "f" * 40)]
    commands = [["dataset=mrpc", *key] for key in ([], *revisions)] + [["dataset=sst2"]]
    code = (
        "import runpy, sys\n"
        f"for arguments in {commands}:\n"
        "    sys.argv = ['data', *arguments]\n"
        "    try: runpy.run_module('pmexp.data', run_name='__main__')\n"
        "    except SystemExit as end: print(f'== {end.code} ==', flush=True)\n"
        "    print('== ==', file=sys.stderr, flush=True)"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(hub_cache)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    printed, codes = done.stdout.split("==")[:8:2], done.stdout.split("==")[1:8:2]
    errors = done.stderr.split("== ==")
    assert codes == [" 0 ", " 0 ", " 2 ", " 2 "], done.stderr
    assert f"dataset=mrpc: hub nyu-mll/glue at {COMMIT} in {hub_cache}" in printed[0]
    assert "  train: 20 samples" in printed[0] and printed[1].strip() == printed[0].strip()
    assert (
        f"dataset.revision: {'f' * 40} of nyu-mll/glue cannot be had, the local cache holds {COMMIT}"
        in errors[2]
    )
    assert "hub dataset nyu-mll/glue cannot be had (offline mode is on; " in errors[3]
    assert errors[3].count("error:") == 1 and "Traceback" not in errors[3]
