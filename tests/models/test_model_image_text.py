"""ViLT on pairs of pictures and texts: what a batch holds, and that packed masks change no step."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViltConfig, ViltForMaskedLM

from composed import config
from pmexp import datasets, models
from pmexp.config import RunConfig
from pmexp.datasets.base import Split
from pmexp.errors import UserError
from pmexp.models.examples import EVALUATION
from pmexp.models.text import train_tokenizer
from pmexp.training.prepared import prepare
from small_runs import Runs

TINY = [
    "task=smoke/vilt-flickr8k",
    *(f"model.architecture.{key}=16" for key in ("hidden_size", "intermediate_size")),
    *("model.architecture.num_hidden_layers=1", "model.architecture.num_attention_heads=2"),
    *("train.threads=1", "train.batch_size=96", "tracking=off"),
]
SIZES = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "vocab_size": 60, "image_size": 8, "patch_size": 4, "max_position_embeddings": 12,
}  # fmt: skip


def tiny(*overrides: str) -> RunConfig:
    return config(*TINY, *overrides)


def test_every_second_text_is_anothers_and_drawn_anew_in_each_epoch() -> None:
    run = tiny()
    model = models.build(run, datasets.load(run.dataset))
    examples = model.examples(datasets.load(run.dataset).val, run.dataset.max_length)
    rows = torch.arange(40)
    first, second, other = (examples.batch(rows, epoch) for epoch in (0, 0, 1))
    own = rows % 2 == 0
    assert first.labels.equal(own.long())
    ids = first.inputs["input_ids"]
    assert ids.equal(second.inputs["input_ids"]) and ids[own].equal(other.inputs["input_ids"][own])
    assert not ids[~own].equal(other.inputs["input_ids"][~own])
    assert not (ids[own] == ids[~own]).all(1).any()  # never the sentence that names the digit
    pixels = first.inputs["pixel_values"]
    assert pixels[own].equal(pixels[~own]) and pixels.shape == (40, 1, 8, 8)
    assert first.positions == (0, 0) and first.targets == 40
    assert examples.batch(rows.flip(0), 0).inputs["input_ids"].equal(ids.flip(0))


def test_evaluations_ask_every_seed_the_same() -> None:
    def asked(seed: int, epoch: int) -> torch.Tensor:
        run = tiny(f"seed={seed}")
        data = datasets.load(run.dataset)
        return (
            models.build(run, data).examples(data.val, 12).batch(torch.arange(64), epoch).inputs["input_ids"]
        )

    assert asked(0, EVALUATION).equal(asked(1, EVALUATION))
    assert not asked(0, 3).equal(asked(1, 3))


def test_an_evaluation_draws_the_same_each_time_and_no_number_of_the_training() -> None:
    """ViLT chooses and orders its patches by torch's generator, in evaluation as well."""
    training = prepare(tiny()).training
    before = torch.get_rng_state()
    first, second = (training.evaluator.evaluate(training.val) for _ in range(2))
    assert first == second and torch.get_rng_state().equal(before)


def test_packed_masks_that_are_the_same_change_no_bit() -> None:
    def trained(variant: str) -> list[torch.Tensor]:
        training = prepare(tiny(f"variant={variant}", "train.max_steps=2", "variant.p=0.3")).training
        losses = [torch.tensor(metrics.get("train/loss", 0.0)) for _, metrics in training.steps()]
        return [*losses, *(parameter.detach() for parameter in training.module.parameters())]

    stock, packed, others = (trained(name) for name in ("baseline", "pm-drop-same-masks", "pm-drop"))
    assert all(map(torch.equal, stock, packed))
    assert not all(map(torch.equal, stock, others))


def test_a_run_records_the_data_and_what_the_first_step_showed(runs: Runs) -> None:
    code, _, err = runs.train(*TINY, "variant=pm-drop", "train.max_steps=2")
    assert code == 0, err
    summary = runs.summaries()["pm-drop-s0"]
    assert summary["environment"]["data_classes"] == "0: other, 1: own"
    assert set(summary["metrics"]) >= {"val/accuracy", "test/f1", "inference/ms_per_sample"}
    assert "progress/padding" not in summary["metrics"]
    assert summary["metrics"]["progress/computed_length"] == 12 + 4 + 1
    assert summary["replacement"]["settled"] and len(summary["replacement"]["modules"]) == 5
    (left,) = summary["replacement"]["left"].values()  # what ViLT shuffles its patches by
    assert left.startswith("multinomial draws at vilt/modeling_vilt.py")


def pairs_in(folder: Path) -> Path:
    """Eight real digits as files, with their sentences in a table."""
    data = datasets.load(tiny().dataset).train.inputs
    lines = ["file,text"]
    folder.mkdir()
    for number in range(8):
        pixels = ((data.pictures[number, 0] + 1) * 127).astype(np.uint8)  # type: ignore[union-attr]
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{data.texts[number]}")  # type: ignore[union-attr]
    for name in ("train.csv", "dev.csv"):
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def test_a_folder_of_pictures_trains_a_checkpoint_from_a_folder(tmp_path: Path, runs: Runs) -> None:
    torch.manual_seed(1)
    ViltForMaskedLM(ViltConfig(**SIZES)).save_pretrained(tmp_path / "vilt")
    folder = pairs_in(tmp_path / "pairs")
    texts = [(line.split(",")[1],) for line in (folder / "train.csv").read_text().splitlines()[1:]]
    train_tokenizer(Split(texts, np.zeros(8, np.int64)), 60).save_pretrained(tmp_path / "vilt")
    arguments = [
        *("task=vilt-flickr8k", f"dataset.path={folder}", "dataset.image_column=file"),
        *("dataset.text_columns=[text]", "dataset.max_length=12", f"model.path={tmp_path / 'vilt'}"),
        *("variant=pm-drop", "train.max_steps=2", "train.batch_size=4", "train.threads=1", "tracking=off"),
    ]
    code, _, err = runs.train(*arguments)
    assert code == 0, err
    environment = runs.summaries()["pm-drop-s0"]["environment"]
    assert "random: classifier." in environment["weights"] and "left out: mlm_score" in environment["weights"]
    assert environment["data"] == str(folder) and environment["data_digest"].startswith("sha256:")
    code, _, err = runs.train(*arguments, "dataset.max_length=13")
    assert code == 2 and "exceeds the 12 positions" in err


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["dataset=digits"], "the model takes image_texts, the dataset holds images"),
        (["model=vit-digits"], "the model takes images, the dataset holds image_texts"),
        (["dataset.path=x"], "is bundled with scikit-learn"),
        (["robustness.fgsm=0.1"], "takes texts, alone or beside images"),
        (
            ["dataset.objective=masked_lm", "dataset.metrics=[perplexity]"],
            "masked_lm does not fit dataset.kind=digit_captions",
        ),
        (["dataset.padding=longest"], "dataset.padding"),
    ],
)
def test_what_does_not_fit_is_one_line(overrides: list[str], said: str, runs: Runs) -> None:
    code, _, err = runs.train(*TINY, *overrides)
    assert code == 2 and said in err and err.count("\n") == 1


def test_images_of_another_size_are_refused() -> None:
    run = tiny("model.architecture.image_size=16")
    with pytest.raises(UserError, match=r"takes images of .* \(1, 16, 16\), the dataset has \(1, 8, 8\)"):
        models.build(run, datasets.load(run.dataset))
