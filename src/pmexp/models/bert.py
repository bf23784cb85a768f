"""BERT encoders for sequence classification, with the checkpoint's tokenizer or one trained here."""

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
)

from pmexp.config import RunConfig
from pmexp.datasets.base import Dataset, Split
from pmexp.errors import UserError
from pmexp.models.base import TaskModel, from_architecture, hf_fields
from pmexp.models.checkpoint import locate

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def build(config: RunConfig, dataset: Dataset) -> TaskModel:
    tokenizer: Any
    if config.model.pretrained:
        folder = locate(config.model)
        try:
            if AutoConfig.from_pretrained(folder).model_type != "bert":
                raise ValueError(
                    f"its model_type is {AutoConfig.from_pretrained(folder).model_type}, not bert"
                )
            tokenizer = AutoTokenizer.from_pretrained(folder)
            module = BertForSequenceClassification.from_pretrained(
                folder, **hf_fields(config, dataset.classes)
            )
        except Exception as error:
            raise UserError(
                f"model.path: {folder} does not load as a BERT ({str(error).splitlines()[0]})"
            ) from None
        weights = str(folder)
    else:
        hf_config = from_architecture(BertConfig, config, dataset.classes)
        tokenizer = train_tokenizer(dataset.train, hf_config.vocab_size)
        module = BertForSequenceClassification(hf_config)
        weights = "random"
    _check_length(config, module.config.max_position_embeddings)
    length = config.dataset.max_length

    def encode(split: Split) -> dict[str, Tensor]:
        assert isinstance(split.inputs, list)
        columns = [list(column) for column in zip(*split.inputs, strict=True)]
        encoded = tokenizer(*columns, padding="max_length", truncation=True, max_length=length)
        wanted = ("input_ids", "token_type_ids", "attention_mask")
        return {name: torch.tensor(encoded[name]) for name in wanted if name in encoded}

    return TaskModel(module, encode, length, weights)


def train_tokenizer(train: Split, vocab_size: int) -> PreTrainedTokenizerFast:
    """BERT's uncased WordPiece tokenizer with a vocabulary of the training texts."""
    assert isinstance(train.inputs, list)
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=_SPECIAL, show_progress=False)
    tokenizer.train_from_iterator((text for texts in train.inputs for text in texts), trainer)
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", _SPECIAL.index("[SEP]")), ("[CLS]", _SPECIAL.index("[CLS]"))
    )
    pad, unk, cls_token, sep_token, mask = _SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        unk_token=unk,
        cls_token=cls_token,
        sep_token=sep_token,
        mask_token=mask,
    )


def _check_length(config: RunConfig, positions: int) -> None:
    if config.dataset.max_length > positions:
        raise UserError(
            f"dataset.max_length: {config.dataset.max_length} exceeds the {positions} positions of "
            f"model={config.model.name}; choose at most {positions}"
        )
