"""A checkpoint that is replaced under its path is not the one that a run was made of."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pmexp.models.checkpoint_files import digest_of_folder
from small_checkpoints import rewrite, saved
from small_runs import Runs


def other_weights(folder: Path) -> None:
    """Writes other weights of the same size into `folder`, and sets the old time of modification."""
    file = folder / "model.safetensors"
    time = file.stat().st_mtime
    weights = load_file(file)
    save_file(weights | {"classifier.weight": -weights["classifier.weight"]}, file, {"format": "pt"})
    os.utime(file, (time, time))


def other_tokenizer(folder: Path) -> None:
    rewrite(folder / "tokenizer_config.json", model_max_length=9)


@pytest.mark.parametrize("change", [other_weights, other_tokenizer])
def test_a_changed_checkpoint_under_a_finished_run_is_said(
    change: Callable[[Path], None], runs: Runs, few_news: str, tmp_path: Path
) -> None:
    model, copy = tmp_path / "checkpoint", tmp_path / "copy"
    saved(model)
    shutil.copytree(model, copy)
    command = [
        "model=tinybert",
        "dataset=reuters-r8",
        few_news,
        f"model.path={model}",
        "dataset.max_length=8",
    ]
    command += ["train.max_steps=1", "train.threads=1", "tracking=off", "variant=baseline"]
    assert runs.train(*command)[0] == 0
    (folder,) = runs.run_folders()
    before = runs.summaries()["baseline-s0"]["environment"]["model_digest"]
    (model / "README.md").write_text("not read")
    assert runs.train(*command)[0] == 0

    change(model)
    for arguments in (command, ["-m", *command, "seed=0,1"]):
        code, _, err = runs.train(*arguments)
        start = (
            f"error: model.path={model}: its checkpoint has changed since {folder} was made of it ({before} "
        )
        assert code == 2 and err.startswith(start) and digest_of_folder(model) in err and err.count("\n") == 1
    assert runs.run_folders() == [folder]

    shutil.rmtree(model)
    shutil.copytree(copy, model)
    assert digest_of_folder(model) == before and runs.train(*command)[0] == 0


def test_the_digest_is_of_what_is_read(tmp_path: Path) -> None:
    saved(tmp_path / "a").save_pretrained(tmp_path / "a", max_shard_size="5KB")
    digests = [digest_of_folder(tmp_path / "a")]
    (tmp_path / "a" / "model.safetensors").unlink()
    shards = sorted((tmp_path / "a").glob("model-*.safetensors"))
    digests.append(digest_of_folder(tmp_path / "a"))
    save_file({name: torch.zeros_like(tensor) for name, tensor in load_file(shards[1]).items()}, shards[1])
    digests.append(digest_of_folder(tmp_path / "a"))
    assert len(set(digests)) == 3 and len(shards) > 1
    snapshot = tmp_path / "snapshots" / "0123abc"
    saved(snapshot)
    assert digest_of_folder(snapshot) == "commit:0123abc" and digest_of_folder(tmp_path / "gone") == ""
