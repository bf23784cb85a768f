"""Real pictures in the ImageFolder layout: read lazily, cropped and augmented the same on every run."""

import os
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images
from transformers import ViTConfig, ViTModel

import datasets as hub_datasets
from composed import config
from pmexp import datasets, models
from pmexp.config import DatasetConfig, DatasetKind
from pmexp.datasets.base import Dataset
from pmexp.datasets.pictures import Pictures
from pmexp.datasets.tables import Tables
from pmexp.errors import UserError
from pmexp.models.examples import EVALUATION, Batch
from pmexp.models.images import ImageBatches, record
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


def test_pictures_of_train_in_another_split_are_told(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "train", tmp_path / "train")
    shutil.copytree(folder / "val", tmp_path / "val")
    assert load(tmp_path).doubts == ""
    for name in ("china", "flower"):
        shutil.copy(tmp_path / "train" / name / "0.JPEG", tmp_path / "val" / name / "again.jpg")
        (tmp_path / "val" / name / "1.png").unlink()
    assert load(tmp_path).doubts == "2 of 4 samples of the val split are in the train split too"


def test_a_picture_in_the_folders_of_two_classes_is_told(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "pictures")
    train = tmp_path / "pictures" / "train"
    shutil.copy(train / "china" / "0.JPEG", train / "flower" / "again.jpg")
    assert load(train.parent).doubts.startswith("2 of ")
    assert load(train.parent).doubts.endswith("samples of the train split are there with another label too")


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
    pixels = ImageBatches(pictures(folder), train=False).batch([4, 0])
    assert pixels.shape == (2, 3, 224, 224) and pixels.dtype == torch.uint8
    images = Batch({"pixel_values": pixels}, torch.zeros(2)).to(torch.device("cpu")).inputs["pixel_values"]
    resized = Image.open(folder / "train/china/0.JPEG").resize((295, 256), Image.Resampling.BICUBIC)
    middle = torch.from_numpy(np.asarray(resized)[16:240, 35:259].copy()).permute(2, 0, 1)
    apart = images[1] - (middle.to(torch.float32) / 255 - 0.5) / 0.5
    assert apart.abs().max() <= 2 / 255 + 1e-6  # a level: torch's weights are rounded otherwise
    assert apart.count_nonzero() < apart.numel() / 400
    assert images.amin() >= -1 and images.amax() <= 1


def test_a_narrow_picture_still_fills_the_crop(tmp_path: Path, folder: Path) -> None:
    Image.open(folder / "val/china/0.png").crop((0, 0, 20, 200)).save(tmp_path / "narrow.png")
    batches = ImageBatches(Pictures([str(tmp_path / "narrow.png")]), train=False, size=32)
    assert batches.batch([0]).shape == (1, 3, 32, 32)


def in_memory(*images: Image.Image) -> Pictures:
    files = [BytesIO() for _ in images]
    for image, file in zip(images, files, strict=True):
        image.save(file, "PNG")
    return Pictures([{"bytes": file.getvalue(), "path": None} for file in files])


@given(width=st.integers(1, 300), height=st.integers(1, 300), size=st.integers(1, 40))
@example(width=49, height=49, size=1)  # 49 times (1 / 49) is less than 1
@settings(max_examples=60, deadline=None)
def test_a_picture_of_any_size_gives_a_crop_of_any_size(width: int, height: int, size: int) -> None:
    of_one_colour = Image.new("RGB", (width, height), (10, 20, 30))
    pixels = ImageBatches(in_memory(of_one_colour), train=False, size=size).batch([0])
    assert torch.equal(
        pixels, torch.tensor([10, 20, 30]).byte()[None, :, None, None].expand(1, 3, size, size)
    )


@pytest.mark.parametrize("turn", [False, True])
def test_of_a_long_picture_only_the_middle_is_scaled(turn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest would take memory without a bound: a line of pixels would become as thick as the crop."""
    whole = Image.fromarray(load_sample_images().images[0]).crop((0, 100, 640, 250))
    scaled: list[torch.Tensor] = []

    def spy(pixels: torch.Tensor, **how: Any) -> torch.Tensor:
        scaled.append(interpolate(pixels, **how))
        return scaled[-1]

    interpolate = torch.nn.functional.interpolate
    monkeypatch.setattr(torch.nn.functional, "interpolate", spy)
    shown = whole.transpose(Image.Transpose.TRANSPOSE) if turn else whole
    (pixels,) = ImageBatches(in_memory(shown), train=False, size=32).batch([0])
    resized = whole.resize((round(640 * 37 / 150), 37), Image.Resampling.BICUBIC)
    middle = torch.from_numpy(np.asarray(resized).astype(int)[2:34, 63:95])
    assert (pixels.permute(2, 1, 0) if turn else pixels.permute(1, 2, 0)).sub(middle).abs().max() <= 12
    assert scaled[0].numel() <= 3 * 37 * 74


def test_no_pixel_depends_on_the_threads_of_torch(folder: Path) -> None:
    """A worker has one, and the thread that trains has them all."""
    batches = ImageBatches(pictures(folder), train=True, seed=3)
    threads = torch.get_num_threads()
    made = []
    for number in (1, 4):
        torch.set_num_threads(number)
        made.append(torch.cat([batches.batch([0, 1, 2, 3], epoch) for epoch in range(8)]))
    torch.set_num_threads(threads)
    assert torch.equal(made[0], made[1])


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


def test_augmented_pictures_are_seldom_the_same(folder: Path) -> None:
    train, plain = (ImageBatches(pictures(folder), train=flag) for flag in (True, False))
    still = plain.batch([0])
    seen = torch.cat([train.batch([0], epoch) for epoch in range(12)])
    assert len(torch.unique(seen.flatten(1), dim=0)) > 6
    assert sum(torch.equal(image, still[0]) for image in seen) < 6


@pytest.mark.parametrize(("orientation", "side"), [(1, 641), (6, 640)])  # half of 641 is rounded up
def test_a_large_jpeg_is_decoded_at_a_reduced_scale(orientation: int, side: int, tmp_path: Path) -> None:
    """Its pixels are those of the whole picture, to a few of 255 levels, and cut at the same place."""
    exif = Image.Exif()
    exif[274] = orientation
    whole = Image.fromarray(load_sample_images().images[0]).resize((side, side - 214))
    for kind in ("jpg", "png"):  # which is decoded whole
        name = str(tmp_path / f"1.{kind}")
        (whole if kind == "jpg" else Image.open(tmp_path / "1.jpg")).save(name, exif=exif)
    jpeg, png = (Pictures([str(tmp_path / f"1.{kind}")]) for kind in ("jpg", "png"))
    shown = (side, side - 214) if orientation == 1 else (side - 214, side)
    for least, size in ((428, shown), (213, tuple(-(-side // 2) for side in shown)), (None, shown)):
        image, full = jpeg.reduced(0, least)
        assert (image.size, full) == (size, shown)
    small, exact = (ImageBatches(one, train=False, size=64).batch([0]).int() for one in (jpeg, png))
    assert (small - exact).abs().max() <= 12 and (small - exact).abs().float().mean() < 1
    assert not torch.equal(small, exact)


def test_a_vision_transformer_trains_on_the_folder(folder: Path, runs: Runs) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    arguments = [
        *("model=vit-b16", "model.pretrained=false", "model.architecture.image_size=32"),
        *(f"model.architecture.{key}={value}" for key, value in sizes.items()),
        *("dataset=imagenet1k", f"dataset.path={folder}", "train.batch_size=2", "train.max_steps=2"),
        *("train.threads=1", "tracking=off", "variant=pm-drop"),
    ]
    summaries = {}
    for workers in (0, 2):
        runs.name = f"workers-{workers}"
        code, _, err = runs.train(*arguments, f"train.workers={workers}", f"name={runs.name}")
        assert code == 0, err
        summaries[workers] = runs.summaries()["pm-drop-s0"]
        assert summaries[workers]["environment"]["data_workers"] == workers
        assert summaries[workers]["environment"]["pictures"] == record()
    alone, ahead = summaries.values()
    assert "val/accuracy" in alone["metrics"] and ahead["run_id"] == alone["run_id"]
    assert ahead["outcome"]["weights_sha256"] == alone["outcome"]["weights_sha256"]
    for metric in ("train/loss", "val/loss", "memory/peak_tensor_bytes"):
        assert ahead["metrics"][metric] == alone["metrics"][metric]


def put(real: Path, *places: Path) -> None:
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((real / "val/china/0.png").read_bytes())


def test_pictures_are_found_at_any_depth_in_any_format_and_the_rest_is_named(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    taken = ["1.TIF", "2.gif", "batch 1/3.png", "batch 1/deep/4.JPG", "[5]*?{a}::b@c.jpeg"]
    left = [".DS_Store", "._1.jpg", ".thumbs/1.png", "Thumbs.db", "__MACOSX/1.png", "notes.txt", "gone.png"]
    put(
        folder,
        *(tmp_path / "train" / "a" / name for name in (*taken, *left)),
        tmp_path / "val" / "a" / "1.png",
    )
    put(
        folder,
        tmp_path / "train" / "loose.png",
        tmp_path / "train" / ".cache" / "1.png",
        tmp_path / "more" / "1.png",
    )
    (tmp_path / "train" / "a" / "gone.png").unlink()
    (tmp_path / "train" / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    data = load(tmp_path)
    assert data.classes == ["a"] and len(data.train) == len(taken)
    names = {
        Path(name).relative_to(tmp_path / "train" / "a").as_posix() for name in data.train.inputs._sources
    }  # type: ignore[union-attr]
    assert names == set(taken)
    assert all(data.train.inputs[row].shape == (260, 300, 3) for row in range(len(taken)))
    outside = "left out 10: more, train/.cache, train/loose.png, train/a/.DS_Store, train/a/._1.jpg, ..."
    deeper = "folders below a class, taken as of that class, 2: train/a/batch 1, train/a/batch 1/deep"
    assert (data.origin, data.left_out) == (str(tmp_path), f"{deeper}; {outside}")
    assert outside in caplog.text


def test_the_numbers_of_the_classes_are_on_record(folder: Path, tmp_path: Path) -> None:
    put(
        folder,
        *(tmp_path / split / name / "1.png" for split in ("train", "val") for name in ("2", "10", "1")),
    )
    (tmp_path / "val" / "10" / "1.png").unlink()
    (tmp_path / "val" / "10").rmdir()
    data = load(tmp_path)
    assert data.classes == ["1", "10", "2"] and data.val.labels.tolist() == [0, 2]
    assert data.left_out == "no val pictures of 10"
    assert data.record("data")["data_classes"] == "0: 1, 1: 10, 2: 2"


def test_links_are_followed_and_never_round_in_circles(folder: Path, tmp_path: Path) -> None:
    put(folder, tmp_path / "store" / "deep" / "1.png", tmp_path / "data" / "val" / "a" / "1.png")
    (tmp_path / "data" / "train").mkdir()
    (tmp_path / "data" / "train" / "a").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "deep" / "up").symlink_to(tmp_path / "store")
    data = load(tmp_path / "data")
    assert len(data.train) == 1 and data.left_out.endswith("1: train/a/deep; left out 1: train/a/deep/up")


def test_letters_of_patterns_in_a_path_name_no_other_folder(folder: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("a*", "ab", "[ab]", "x::y", "s3@b", "{a,b}")):
        for split in ("train", "val"):
            put(folder, *(tmp_path / name / split / f"only {number}" / f"{i}.png" for i in range(number + 1)))
    for number, name in enumerate(("a*", "ab", "[ab]", "x::y", "s3@b", "{a,b}")):
        data = load(tmp_path / name)
        assert data.classes == [f"only {number}"] and len(data.train) == number + 1


def test_a_folder_that_cannot_be_read_is_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, *(tmp_path / split / "a" / "1.png" for split in ("train", "val")))
    scandir = os.scandir

    def refusing(place: Any) -> Any:  # root, who may run this, is refused nothing
        if str(place).endswith("val/a"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr("os.scandir", refusing)
    with pytest.raises(UserError, match=r"^dataset.path: .*/val/a cannot be read \(Permission denied\)"):
        load(tmp_path)


def test_a_model_of_other_channels_than_pictures_is_one_line(folder: Path) -> None:
    run = config("model=vit-digits", "model.architecture.image_size=32")
    with pytest.raises(UserError, match=r"takes images .*\(1, 32, 32\), the dataset has \(3, 32, 32\)"):
        models.build(run, load(folder))


def test_pixels_become_the_numbers_that_the_checkpoint_was_trained_with(folder: Path, tmp_path: Path) -> None:
    sizes = {"image_size": 16, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 1}
    ViTModel(ViTConfig(**sizes, num_attention_heads=2, intermediate_size=16)).save_pretrained(tmp_path)
    run, rows = config("model=vit-b16", f"model.path={tmp_path}"), torch.arange(2)
    plain = models.build(run, load(folder))
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": 0.5}')
    assert models.build(run, load(folder)).weights == plain.weights
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.485, 0.456, 0.406]}')
    other = models.build(run, load(folder))
    assert other.weights.endswith(", pixels by its mean 0.485, 0.456, 0.406 and deviation 0.5")
    one, two = (
        model.examples(load(folder).train, 0)
        .batch(rows, EVALUATION)
        .to(torch.device("cpu"))
        .inputs["pixel_values"]
        for model in (plain, other)
    )
    means = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    torch.testing.assert_close(two * 0.5 + means, one * 0.5 + 0.5)


def hub(labels: dict[str, list[int | None]], **changes: Any) -> dict[str, Any]:
    """Splits as the hub's library gives them, with one picture of two pixels a row."""
    stream = BytesIO()
    Image.new("I;16", (2, 1), 32768).save(stream, "PNG")
    kinds = {"image": hub_datasets.Image(), "label": hub_datasets.ClassLabel(names=["no", "yes"])} | changes
    return {
        split: hub_datasets.Dataset.from_dict(
            {"image": [{"bytes": stream.getvalue(), "path": None}] * len(rows), "label": rows},
            features=hub_datasets.Features(kinds),
            split=split,
        )
        for split, rows in labels.items()
    }


@pytest.mark.parametrize(
    ("labels", "changes", "message"),
    [
        ({"train": [0, 1], "val": [1], "test": [-1, -1]}, {}, None),
        ({"train": [0, None], "val": [1]}, {}, "row 1 of the train split of a/b has no label"),
        ({"train": [0, 1], "val": [1, -1]}, {}, "row 1 of the val split of a/b has no label"),
        ({"train": [0], "val": [1], "test": [1, -1]}, {}, "row 1 of the test split of a/b has no label"),
        (
            {"train": [0], "val": [1]},
            {"label": hub_datasets.Value("int64")},
            "'label' of a/b names no classes",
        ),
    ],
)
def test_pictures_of_the_hub_go_the_same_way(
    labels: Any, changes: Any, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = Tables(hub(labels, **changes), "hub a/b", places={})
    monkeypatch.setattr("pmexp.datasets.imagenet.tables", lambda config: tables)
    dataset = DatasetConfig(name="imagenet1k", kind=DatasetKind.imagenet, hub_id="a/b")
    if message is not None:
        with pytest.raises(UserError, match=message):
            datasets.load(dataset)
        return
    data = datasets.load(dataset)
    assert data.test is None and data.train.labels.tolist() == [0, 1]
    assert np.array_equal(data.train.inputs[1], np.full((1, 2, 3), 128))
