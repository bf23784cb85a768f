"""Makes ViLT say whether a text describes the picture beside it: one transformer over words and patches.

ViLT draws random numbers in every forward, also in evaluation: transformers shuffles the patches, each with
its position, which changes what it computes by rounding alone.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForVisualQuestionAnswering, PreTrainedModel

from pmexp.config import RunConfig
from pmexp.datasets.base import Dataset, Split
from pmexp.datasets.captioned import Captioned
from pmexp.datasets.pictures import Pictures
from pmexp.models import positions
from pmexp.models.base import TaskModel, from_architecture, from_configuration, hf_fields
from pmexp.models.checkpoint import Loaded, load_pretrained, load_tokenizer, locate
from pmexp.models.colours import BY_DEFAULT, Colours
from pmexp.models.examples import EVALUATION, Batch, Examples
from pmexp.models.image import check_images, with_colours
from pmexp.models.images import ImageBatches
from pmexp.models.text import encoded, fit_tokenizer, train_tokenizer


def build(config: RunConfig, dataset: Dataset) -> TaskModel:
    """Returns the model with a head of two classes. Raises UserError as models.build says."""
    captioned = _captioned(dataset.train)
    if config.model.pretrained:
        folder = locate(config.model)
        tokenizer = load_tokenizer(folder, config)
        loaded = load_pretrained(AutoModelForVisualQuestionAnswering, folder, config, dataset.classes)
        if config.model.positions:
            extended = positions.extend(loaded.module, config.model)
            loaded = loaded._replace(weights=f"{loaded.weights}, {extended}")
        loaded, colours = with_colours(loaded, folder, captioned.pictures)
        fit_tokenizer(tokenizer, loaded.module, config)
    else:
        tokenizer = train_tokenizer(_texts(captioned), from_architecture(config).vocab_size)
        loaded = Loaded(untrained(config, len(dataset.classes), tokenizer.pad_token_id))
        colours = BY_DEFAULT
    module, length = loaded.module, config.dataset.max_length
    positions.check(length, module, config.model)
    check_images(module, captioned.pictures)
    patches = (module.config.image_size // module.config.patch_size) ** 2

    def examples(split: Split, length: int) -> Examples:
        pairs = _captioned(split)
        texts = encoded(tokenizer, _texts(pairs), length).inputs
        return CaptionedExamples(pairs, texts, _pixels(pairs, module.config.image_size), config.seed, colours)

    return loaded.task_model(examples, length + patches + 1)


def untrained(config: RunConfig, classes: int, pad_token_id: int = 0) -> PreTrainedModel:
    """The architecture of the configuration with random weights; it needs no data and no checkpoint."""
    hf_config = from_architecture(config, **hf_fields(config, classes) | {"pad_token_id": pad_token_id})
    if config.model.positions:
        hf_config.max_position_embeddings = config.model.positions
    return from_configuration(AutoModelForVisualQuestionAnswering, hf_config, config.dataset.objective)


class CaptionedExamples:
    """Pairs of a picture and a text, every second one with the text of another picture.

    Which text that is depends on (seed, epoch, row): another one in each epoch, and in evaluations one and
    the same in every run. Pictures are not augmented, since a text may say what is left or red.
    """

    def __init__(
        self,
        captioned: Captioned,
        texts: dict[str, Tensor],
        pixels: Callable[[list[int]], Tensor],
        seed: int,
        colours: Colours,
    ) -> None:
        """texts: each (texts, positions). pixels: of pictures, (pictures, channels, size, size), uint8 or
        float32 as they are."""
        self._captioned, self._texts, self._pixels, self._seed = captioned, texts, pixels, seed
        self._labels, self._colours = torch.from_numpy(captioned.labels), colours

    @property
    def decodes(self) -> bool:
        """Whether pictures are decoded for each batch, not held in memory."""
        return isinstance(self._captioned.pictures, Pictures)

    def __len__(self) -> int:
        return len(self._captioned)

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        chosen = torch.tensor([self._text_of(row, epoch) for row in rows.tolist()])
        inputs = {name: tensor[chosen].long() for name, tensor in self._texts.items()}
        pictures = self._captioned.picture_of[(rows // 2).numpy()].tolist()
        inputs["pixel_values"] = self._pixels(pictures)
        return Batch(inputs, self._labels[rows], colours=self._colours)

    def _text_of(self, row: int, epoch: int) -> int:
        text, is_others = divmod(row, 2)
        if not is_others:
            return text
        seed = 0 if epoch == EVALUATION else self._seed
        return self._captioned.drawn(text, np.random.default_rng((seed, epoch - EVALUATION, row)))


def _captioned(split: Split) -> Captioned:
    assert isinstance(split.inputs, Captioned)
    return split.inputs


def _texts(captioned: Captioned) -> Split:
    return Split([(text,) for text in captioned.texts], np.zeros(len(captioned.texts), np.int64))


def _pixels(captioned: Captioned, size: int) -> Callable[[list[int]], Tensor]:
    if isinstance(captioned.pictures, Pictures):
        return ImageBatches(captioned.pictures, train=False, size=size).batch
    held = torch.from_numpy(captioned.pictures)
    return lambda pictures: held[pictures]
