"""BERT encoders for sequence classification, with the checkpoint's tokenizer or one trained here."""

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
)

from pmexp.config import RunConfig
from pmexp.datasets.base import Dataset, Split
from pmexp.errors import UserError
from pmexp.models.base import TaskModel, from_architecture
from pmexp.models.checkpoint import from_folder, load_pretrained, locate

_INPUTS = ("input_ids", "token_type_ids", "attention_mask")
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def build(config: RunConfig, dataset: Dataset) -> TaskModel:
    tokenizer: Any
    if config.model.pretrained:
        folder = locate(config.model)
        tokenizer = from_folder("tokenizer", folder, AutoTokenizer.from_pretrained)
        module, weights = load_pretrained(BertForSequenceClassification, folder, config, dataset.classes)
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
        return {name: torch.tensor(encoded[name]) for name in _INPUTS if name in encoded}

    return TaskModel(module, encode, length, weights)


def train_tokenizer(train: Split, vocab_size: int) -> PreTrainedTokenizerFast:
    """BERT's uncased WordPiece tokenizer with a vocabulary of the training texts, the same on every run."""
    assert isinstance(train.inputs, list)
    tokenizer = _bert_pipeline(models.WordPiece(unk_token="[UNK]"))
    texts = [tokenizer.normalizer.normalize_str(text) for texts in train.inputs for text in texts]
    # The trainer numbers "##x" pieces in the random order of a hash map and breaks ties by these numbers,
    # unless they are there before it starts. They are no special tokens in the tokenizer made below.
    continuations = [f"##{character}" for character in sorted(set("".join(texts)) - set(" "))]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=_SPECIAL + continuations, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer = _bert_pipeline(models.WordPiece(tokenizer.get_vocab(), unk_token="[UNK]"))
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
        model_input_names=list(_INPUTS),
    )


def _bert_pipeline(model: models.WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _check_length(config: RunConfig, positions: int) -> None:
    if config.dataset.max_length > positions:
        raise UserError(
            f"dataset.max_length: {config.dataset.max_length} exceeds the {positions} positions of "
            f"model={config.model.name}; choose at most {positions}"
        )
