"""The supported models, each under every attention that it has, and what is reached there."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import yaml

from pmexp.command.compose import compose, compose_part
from pmexp.command.schema import conf_folder, options
from pmexp.config import Attention, Device, LoraConfig, ModelConfig, ModelKind, Objective, Part, RunConfig
from pmexp.config.kinds import KINDS
from pmexp.integration.reach import Reach, on_meta, reach

LENGTH = 512  # tokens of the sample
VARIANTS = ("baseline", "pm-drop", "pm-drop-recompute")

_TEXT_RUN = ("model=tinybert", "model.pretrained=false", "dataset=reuters-r8")
_PAIR_RUN = ("model=t5-small", "model.pretrained=false", "dataset=django-messages")
_RUNS: dict[ModelKind, tuple[str, ...]] = {
    ModelKind.vit: (),
    ModelKind.vilt: ("task=smoke/vilt-flickr8k",),
    **{kind: _PAIR_RUN for kind in KINDS if Objective.seq2seq in KINDS[kind].objectives},
}
_ADAPTED = (ModelKind.llama,)  # whose adapters alone drop, as a rule
_WITH_FLASH = ("bert-base", "longformer-base-4096")


@dataclass(frozen=True)
class Case:
    """One model under one attention, and what each of VARIANTS reaches there."""

    attention: str
    config: RunConfig
    asked_for: bool  # transformers takes another attention unless told
    stock: Reach
    packed: Reach
    recomputing: Reach


def names() -> list[str]:
    """Returns every option of conf/model whose architecture pmexp knows, and every architecture that none of
    them has."""
    known = {kind.name for kind in KINDS}
    named = [name for name in options("model") if _settings(name)["kind"] in known]
    covered = {configuration(name).model.kind for name in named}
    return named + [kind.name for kind in KINDS if kind not in covered]


def _settings(name: str) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load((conf_folder() / "model" / f"{name}.yaml").read_text())
    return settings


@cache
def configuration(name: str) -> RunConfig:
    """Returns a run of one of `names()`, on the CPU; an architecture without an option has the sizes of
    transformers."""
    if name in ModelKind.__members__:
        model = ModelConfig(name=name, kind=ModelKind[name])
    else:
        part = compose_part("model", [f"model={name}"])
        assert isinstance(part, ModelConfig)
        model = part
    if model.kind in _ADAPTED:
        model = replace(model, lora=LoraConfig(rank=16))
    run = compose(_RUNS.get(model.kind, _TEXT_RUN))
    return replace(run, model=model, system=replace(run.system, device=Device.cpu))


def length_of(config: RunConfig) -> int:
    """Returns the tokens of the sample; beside a picture so many as the dataset has."""
    return config.dataset.max_length if config.model.kind is ModelKind.vilt else LENGTH


@cache
def cases(name: str) -> tuple[Case, ...]:
    """Returns the cases: eager attention, sdpa where the model has it, and system=flash for two models."""
    eager = configuration(name)
    wanted = {"eager": eager}
    has_sdpa = bool(on_meta(eager)._supports_sdpa)
    if has_sdpa:
        wanted["sdpa"] = replace(eager, model=replace(eager.model, attention=Attention.sdpa))
    if name in _WITH_FLASH:
        wanted["system=flash"] = replace(eager, system=replace(eager.system, parts=[Part.flash]))
    variants = [compose([f"variant={variant}"]).variant for variant in VARIANTS]
    return tuple(
        Case(
            attention,
            config,
            has_sdpa and attention == "eager",
            *(reach(config, variant, length_of(config)) for variant in variants),
        )
        for attention, config in wanted.items()
    )
