"""Checkpoints of small models as save_pretrained leaves them, and their data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification

from pmexp.datasets.base import Dataset, Split
from pmexp.models.text import train_tokenizer

TEXTS = [("The profit rose; profits rise.",), ("Grain shipments fell.",), ("crude oil #42 été",)]
TRAIN = Split(TEXTS * 2, np.zeros(6, dtype=np.int64))
DATA = Dataset(TRAIN, TRAIN, None, ["no", "yes"])
SIZES = {
    "vocab_size": 80, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 16, "max_position_embeddings": 64,
}  # fmt: skip


def saved(folder: Path, model: type[Any] = BertForSequenceClassification, dtype: Any = torch.float32) -> Any:
    """What save_pretrained of a small BERT with its tokenizer leaves in `folder`."""
    torch.manual_seed(1)
    module = model(BertConfig(**SIZES)).to(dtype)
    module.save_pretrained(folder)
    train_tokenizer(TRAIN, 80).save_pretrained(folder)
    return module


def rewrite(file: Path, **values: Any) -> None:
    before = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(before | values))
