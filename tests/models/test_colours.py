"""What makes numbers of pixels, against the image processors of transformers that checkpoints were made with."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    CLIPImageProcessor,
    ConvNextImageProcessor,
    MobileViTImageProcessor,
    ViTImageProcessor,
)

from pmexp.errors import UserError
from pmexp.models.checkpoint_files import digest_of_folder
from pmexp.models.colours import BY_DEFAULT, colours_of
from small_checkpoints import rewrite

PIXELS = torch.arange(2 * 3 * 16 * 16).reshape(2, 3, 16, 16).mul(37).remainder(256).to(torch.uint8)
PROCESSORS: dict[str, Any] = {
    "ViT": ViTImageProcessor(),
    "CLIP": CLIPImageProcessor(),
    "DINOv2": ConvNextImageProcessor(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]),
    "grey means": ViTImageProcessor(image_mean=0.25, image_std=0.75),
    "MobileViT": MobileViTImageProcessor(),
    "no means": ViTImageProcessor(do_normalize=False),
    "wider": ViTImageProcessor(rescale_factor=1 / 127.5, image_mean=[1.0] * 3, image_std=[1.0] * 3),
    "bytes": ViTImageProcessor(
        do_rescale=False, image_mean=[123.7, 116.3, 103.5], image_std=[58.4, 57.1, 57.4]
    ),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_become_the_numbers_that_transformers_makes(name: str, tmp_path: Path) -> None:
    processor = PROCESSORS[name]
    processor.save_pretrained(tmp_path)
    theirs = processor(list(PIXELS), do_resize=False, do_center_crop=False, return_tensors="pt")[
        "pixel_values"
    ]
    ours = colours_of(tmp_path, channels=3)
    torch.testing.assert_close(ours.numbers(PIXELS), theirs.float(), rtol=1e-5, atol=1e-5)
    black, white = ours.limits(torch.device("cpu"))
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    torch.testing.assert_close(torch.stack([black, white]).expand(2, 3, 1, 1), ours.numbers(ends))
    assert (ours == BY_DEFAULT) == (ours.record() == "") == (name in ("ViT", "wider"))


def test_a_processor_inside_of_another_is_read_and_in_the_digest(tmp_path: Path) -> None:
    before = digest_of_folder(tmp_path)
    rewrite(tmp_path / "processor_config.json", image_processor={"image_mean": [0.1, 0.2, 0.3]})
    assert colours_of(tmp_path, 3).mean == (0.1, 0.2, 0.3)
    assert digest_of_folder(tmp_path) != before


@pytest.mark.parametrize(
    "wrong", [{"image_mean": [0.1, 0.2]}, {"image_mean": "x"}, {"image_std": 0, "do_normalize": True}]
)
def test_settings_that_say_no_numbers_are_one_line(wrong: dict[str, Any], tmp_path: Path) -> None:
    rewrite(tmp_path / "preprocessor_config.json", **wrong)
    with pytest.raises(
        UserError, match=r"^model\.path: .*preprocessor_config\.json does not say how pixels become"
    ):
        colours_of(tmp_path, 3)
