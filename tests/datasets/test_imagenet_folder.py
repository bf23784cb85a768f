"""Real pictures in the ImageFolder layout: read lazily, cropped and augmented the same on every run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from pmexp import datasets
from pmexp.config import DatasetConfig, DatasetKind
from pmexp.datasets.base import Dataset
from pmexp.datasets.pictures import Pictures
from pmexp.errors import UserError
from pmexp.models.images import ImageBatches
from small_runs import Runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops of the two photographs that scikit-learn bundles: a Chinese temple and a flower."""
    root = tmp_path_factory.mktemp("pictures")
    for name, photograph in zip(("china", "flower"), load_sample_images().images, strict=True):
        whole = Image.fromarray(photograph)
        for split, count in (("train", 3), ("val", 2)):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                crop = whole.crop((60 * i, 20 * i, 60 * i + 300, 20 * i + 260))
                crop.save(root / split / name / f"{i}.{'JPEG' if split == 'train' else 'png'}")
    return root


def load(folder: Path) -> Dataset:
    return datasets.load(DatasetConfig(name="imagenet1k", kind=DatasetKind.imagenet, path=str(folder)))


def pictures(folder: Path) -> Pictures:
    inputs = load(folder).train.inputs
    assert isinstance(inputs, Pictures)
    return inputs


def test_classes_and_pictures_come_from_the_folders(folder: Path) -> None:
    data = load(folder)
    assert data.classes == ["china", "flower"] and data.test is None
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1] and data.val.labels.tolist() == [0, 0, 1, 1]
    flower = load_sample_images().images[1]
    picture = data.val.inputs[3]
    assert picture.dtype == np.uint8
    assert np.array_equal(picture, flower[20:280, 60:360])  # a PNG keeps every pixel
    assert np.array_equal(data.val.take(np.array([3])).inputs[0], picture)


def test_nothing_is_decoded_ahead_and_a_broken_picture_is_named(folder: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "china").mkdir(parents=True)
        (tmp_path / split / "china" / "0.JPEG").write_bytes(
            (folder / "train/china/0.JPEG").read_bytes()[:2000]
        )
    data = load(tmp_path)
    with pytest.raises(UserError, match=r"val/china/0\.JPEG: cannot be decoded"):
        data.val.inputs[0]


def test_grey_pictures_and_pictures_with_alpha_are_rgb(folder: Path, tmp_path: Path) -> None:
    real = Image.open(folder / "val/china/0.png")
    for mode in ("L", "RGBA", "P", "CMYK"):
        file = tmp_path / f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}"
        real.convert(mode).save(file)
        assert Pictures([str(file)])[0].shape == (260, 300, 3)


def test_bytes_of_a_hub_dataset_are_decoded_as_its_files_are(folder: Path) -> None:
    file = folder / "train/china/0.JPEG"
    stored = Pictures([{"bytes": file.read_bytes(), "path": None}, {"bytes": None, "path": str(file)}])
    for row in (0, 1):
        assert np.array_equal(stored[row], Pictures([str(file)])[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (["train/a/"], r"no val split; put val/<class>/<picture> there"),
        (["val/a/"], r"has no folder train"),
        (["train/a/", "val/a/", "validation/a/"], r"both claim to be the val split"),
        (["train/a/", "val/b/"], r"val/b is a class that train does not have"),
        (["train/a/", "train/empty", "val/a/"], r"train/empty holds no picture"),
    ],
)
def test_a_folder_of_another_layout_is_one_line(
    make: list[str], message: str, folder: Path, tmp_path: Path
) -> None:
    for place in make:
        (tmp_path / place).mkdir(parents=True)
        if place.endswith("/"):
            (tmp_path / place / "0.png").write_bytes((folder / "val/china/0.png").read_bytes())
    with pytest.raises(UserError, match=message):
        load(tmp_path)


def test_evaluation_takes_the_middle_of_the_resized_picture(folder: Path) -> None:
    """260 x 300 and a shorter side of 256: the crop is what pillow resizes and cuts, scaled to [-1, 1]."""
    images = ImageBatches(pictures(folder), train=False).batch([4, 0])
    assert images.shape == (2, 3, 224, 224) and images.dtype == torch.float32
    resized = Image.open(folder / "train/china/0.JPEG").resize((295, 256), Image.Resampling.BICUBIC)
    middle = torch.from_numpy(np.asarray(resized)[16:240, 35:259].copy()).permute(2, 0, 1)
    assert torch.equal(images[1], (middle.to(torch.float32) / 255 - 0.5) / 0.5)
    assert images.amin() >= -1 and images.amax() <= 1


def test_a_narrow_picture_still_fills_the_crop(tmp_path: Path, folder: Path) -> None:
    Image.open(folder / "val/china/0.png").crop((0, 0, 20, 200)).save(tmp_path / "narrow.png")
    batches = ImageBatches(Pictures([str(tmp_path / "narrow.png")]), train=False, size=32)
    assert batches.batch([0]).shape == (1, 3, 32, 32)


def test_augmentation_depends_on_seed_epoch_and_row_alone(folder: Path) -> None:
    state = torch.get_rng_state()
    one, two = (ImageBatches(pictures(folder), train=True, seed=3) for _ in range(2))
    whole = one.batch([0, 1, 2, 3, 4, 5], epoch=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(123)
    assert torch.equal(two.batch([5, 2], epoch=1), whole[[5, 2]])
    assert not torch.equal(two.batch([0, 1, 2, 3, 4, 5], epoch=2), whole)
    other = ImageBatches(pictures(folder), train=True, seed=4)
    assert not torch.equal(other.batch([0, 1, 2, 3, 4, 5], epoch=1), whole)


def test_augmented_pictures_are_as_bounded_as_others_and_seldom_the_same(folder: Path) -> None:
    train, plain = (ImageBatches(pictures(folder), train=flag) for flag in (True, False))
    still = plain.batch([0])
    seen = torch.cat([train.batch([0], epoch) for epoch in range(12)])
    assert seen.amin() >= -1 and seen.amax() <= 1
    assert len(torch.unique(seen.flatten(1), dim=0)) > 6
    assert sum(torch.equal(image, still[0]) for image in seen) < 6


def test_a_vision_transformer_trains_on_the_folder(folder: Path, runs: Runs) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    arguments = [
        *("model=vit-b16", "model.pretrained=false", "model.architecture.image_size=32"),
        *(f"model.architecture.{key}={value}" for key, value in sizes.items()),
        *("dataset=imagenet1k", f"dataset.path={folder}", "train.batch_size=2", "train.max_steps=2"),
        *("train.threads=1", "tracking=off", "variant=pm-drop"),
    ]
    code, _, err = runs.train(*arguments)
    assert code == 0, err
    assert "val/accuracy" in runs.summaries()["pm-drop-s0"]["metrics"]
