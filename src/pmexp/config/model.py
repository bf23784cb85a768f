"""`model.*`: which architecture, where its weights come from, its dropout rates."""

import os
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING

from pmexp.config.checks import check_at_least, check_between, check_hub_id, check_name, check_positive
from pmexp.config.lora import LoraConfig
from pmexp.errors import UserError
from pmexp.own_code import check_import_path


class ModelKind(Enum):
    """Names the ways to build a model."""

    auto = "auto"  # whatever architecture model.architecture.model_type, or the checkpoint, names
    bart = "bart"
    bert = "bert"
    deberta_v2 = "deberta_v2"
    distilbert = "distilbert"
    gpt2 = "gpt2"
    gptj = "gptj"
    llama = "llama"
    longformer = "longformer"
    roberta = "roberta"
    t5 = "t5"
    vilt = "vilt"
    vit = "vit"


class Attention(Enum):
    """Names the implementations of attention in transformers that a model may take."""

    eager = "eager"
    sdpa = "sdpa"


@dataclass(kw_only=True)
class ModelConfig:
    """Holds the keys of the group `model`."""

    name: str = ""  # how the report calls it; empty: kind auto goes by its builder, checkpoint or model_type
    kind: ModelKind = MISSING
    builder: str | None = None  # mypkg.build: makes the model; see docs/own-code.md
    options: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the builder
    hub_id: str | None = None  # checkpoint on the Hugging Face hub
    revision: str | None = None  # commit of the checkpoint
    path: str | None = None  # local checkpoint folder, instead of hub_id
    pretrained: bool = False  # false: random weights in the architecture below
    attention: Attention = Attention.eager
    positions: int | None = None  # a longer position table, the trained one repeated; null: the model's own
    hidden_dropout: float | None = None  # rate of all dropout but attention's; null: see architecture
    attention_dropout: float | None = None  # rate of attention's dropout; null: see architecture
    lora: LoraConfig = field(default_factory=LoraConfig)
    # Fields of the transformers config. A checkpoint has its own sizes, which are recorded where they differ;
    # rates that are stated here count more than a checkpoint's. Kind auto has its `model_type` here too.
    architecture: dict[str, Any] = field(default_factory=dict)  # fields of transformers' config class
    lr: float = 5e-5  # recommended peak learning rate of a pretrained model
    scratch_lr: float = 1e-3  # the same with pretrained=false

    def __post_init__(self) -> None:
        self._check_builder()
        if self.kind is ModelKind.auto:
            self.name = self.name or self._called_after()
        unsaid = not (self.pretrained or self.builder or self.architecture.get("model_type"))
        if self.kind is ModelKind.auto and unsaid:
            raise UserError(
                "model.architecture.model_type: is missing, and model.kind=auto has no checkpoint that says; "
                "name an architecture of transformers, such as modernbert, qwen3 or t5, or set "
                "model.pretrained=true model.path=<folder>, or model.builder=mypkg.build"
            )
        check_name("model.name", self.name)
        check_hub_id("model.hub_id", self.hub_id)
        check_positive("model.lr", self.lr)
        check_positive("model.scratch_lr", self.scratch_lr)
        for key in ("hidden_dropout", "attention_dropout"):
            if getattr(self, key) is not None:
                check_between(f"model.{key}", getattr(self, key), 0.0, 1.0)
        if self.positions is not None:
            check_at_least("model.positions", self.positions, 2)
        if self.path and not self.pretrained:
            raise UserError(
                f"model.path: {self.path} would not be read, since model.pretrained=false starts from random "
                "weights; set model.pretrained=true, or leave it out"
            )
        if self.revision == "main":
            self.revision = None  # which means the same
        if self.pretrained and not (self.hub_id or self.path):
            raise UserError(
                f"model.pretrained=true: {self.name} has no checkpoint; "
                "set model.path=<folder> or model.pretrained=false"
            )

    def _called_after(self) -> str:
        """Returns a name for a model that has none: two of them are not one in the report."""
        named = [
            (self.builder or "").rpartition(".")[2],
            os.path.basename((self.path or self.hub_id or "").rstrip("/")) if self.pretrained else "",
            str(self.architecture.get("model_type") or ""),
        ]
        chosen = next((name for name in named if name), self.kind.name)
        return re.sub("[^A-Za-z0-9._-]+", "-", chosen)[:64]

    def _check_builder(self) -> None:
        """Raises UserError for a builder that is no import path, or beside a model of pmexp's own."""
        if self.builder is None:
            self.options = {}
            return
        check_import_path("model.builder", self.builder)
        if self.kind is not ModelKind.auto or self.pretrained:
            raise UserError(
                f"model.builder: {self.builder} makes the whole model, and model={self.name} is another; "
                f"write model=own model.builder={self.builder}"
            )

    def unused(self, key: str) -> str:
        """Why `model.<key>` was put back to its default; empty where it has a use."""
        is_option = key.partition(".")[0] == "options"
        return f"model={self.name} has no builder of its own" if is_option and not self.builder else ""

    @property
    def without_effect(self) -> set[str]:
        """Keys that change nothing under the others' values; train.lr holds the learning rate taken."""
        of_the_hub = {"hub_id", "revision"} if self.path or not self.pretrained else set()
        of_lora = {f"lora.{key}" for key in self.lora.without_effect}
        return {"lr", "scratch_lr"} | of_the_hub | of_lora
