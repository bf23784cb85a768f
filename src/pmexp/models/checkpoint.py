"""Loads checkpoints from a local folder or the hub's snapshot in the local cache.

The fields of the architecture are taken from a folder's config.json. What every model of transformers has
besides (dtype, attention, kernels, code, outputs, labels) and the dropout rates that `model.architecture`
states are the run's own choice. Weights become fp32, whatever they were saved in.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedModel

from pmexp.config import LANGUAGE, ModelConfig, Objective, RunConfig
from pmexp.config.kinds import architecture_of
from pmexp.datasets.base import Split
from pmexp.errors import UserError
from pmexp.models.architectures import check_serves, configuration_class, described, plain_parts
from pmexp.models.base import (
    TaskModel,
    check_architecture,
    hf_fields,
    otherwise_than_stated,
    settled,
    with_stated_rates,
)
from pmexp.models.checkpoint_files import (
    NO_VOCABULARY,
    PATTERNS,
    check_folder,
    digest_of_folder,
    read_json,
    read_weights,
    tokenizer_files,
)
from pmexp.models.examples import Examples
from pmexp.models.generation import Generation
from pmexp.models.head import fitted_to, saved_class

log = logging.getLogger(__name__)

_LONGEST_REASON = 240  # so many characters of another library's message are shown

_T = TypeVar("_T")


class Loaded(NamedTuple):
    """A model, of a checkpoint or with random weights, and what the run's record says of it."""

    module: PreTrainedModel
    weights: str = "random"  # says where they came from, and which did not
    architecture: str = ""  # says what differs from `model.architecture`
    digest: str = ""  # digest of the files, or the commit on the hub

    def task_model(
        self,
        examples: Callable[[Split, int], Examples],
        tokens_per_sample: int,
        generation: Generation | None = None,
    ) -> TaskModel:
        """The model as the training loop has it; see TaskModel."""
        told = self.weights, self.architecture, generation, self.digest
        return TaskModel(self.module, examples, tokens_per_sample, *told)


def locate(config: ModelConfig) -> Path:
    """The folder of `model.path` or of `model.hub_id`. Raises UserError when it cannot be had."""
    folder = Path(config.path).expanduser() if config.path else _from_hub(config)
    check_folder(folder)
    if not (folder / "config.json").is_file():
        raise UserError(
            f"model.path: {folder} has no config.json; give a folder written by save_pretrained "
            "(config.json, weights and tokenizer files)"
        )
    return folder


def _from_hub(config: ModelConfig) -> Path:
    from huggingface_hub import snapshot_download

    assert config.hub_id is not None
    # The hub's retries log nothing that the error does not say.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        return Path(snapshot_download(config.hub_id, revision=config.revision, allow_patterns=list(PATTERNS)))
    except Exception as error:
        raise UserError(
            f"model={config.name}: checkpoint {config.hub_id} is neither in the local hub cache nor to be "
            f"downloaded ({type(error).__name__}); download it on a machine with network and set "
            "model.path=<folder>, or train from random weights with model.pretrained=false"
        ) from None


def load_pretrained(auto: Any, folder: Path, config: RunConfig, classes: Sequence[str]) -> Loaded:
    """Loads the model of `folder`, in fp32 and with a head for our task.

    auto: one of transformers' AutoModelFor... classes. Raises UserError when the folder holds another
    architecture, quantised or non-finite weights, or not all of the body's weights, or more of them than the
    model has.
    """
    digest = digest_of_folder(folder)  # taken before the folder is read
    hf_config = from_folder("configuration", folder, lambda _: _configuration(folder, config, len(classes)))
    check_architecture(config, type(hf_config))
    check_serves(auto, hf_config, config.dataset.objective)
    settings = from_folder("configuration", folder, lambda _: read_json(folder / "config.json"))
    different = otherwise_than_stated(config, hf_config)
    if settings.get("auto_map"):
        different = ", ".join(filter(None, [different, "code of its own (auto_map), which is not run"]))
    if getattr(hf_config, "output_router_logits", False):  # its losses would be computed for nothing
        hf_config.output_router_logits = False
        different = ", ".join(filter(None, [different, "losses of routers, which are in no run's loss"]))
    if different:
        log.warning("model.path: the checkpoint in %s has %s", folder, different)
    saved = from_folder("weights", folder, read_weights)
    for name, tensor in saved.items():
        if name.endswith("weight") and not (tensor.is_floating_point() and tensor.itemsize > 1):
            raise _quantised(folder, f"{name} is {_short(tensor.dtype)}")
        if not tensor.isfinite().all():
            raise UserError(
                f"model.path: the weights in {folder} are damaged or diverged ({name} holds values that "
                "are not finite); give a checkpoint without NaN and infinity"
            )
    model, info = from_folder(
        "weights",
        folder,
        lambda _: saved_class(auto, hf_config, settings).from_pretrained(
            None,
            config=hf_config,
            state_dict={name: _owned(tensor) for name, tensor in saved.items()},
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # another task's classifier has such; any other is refused below
            output_loading_info=True,
        ),
    )
    weights = f"{folder}{_saved_as(saved)}{_fitted(folder, model, info, saved)}"
    if not (info["mismatched_keys"] or info["missing_keys"]):  # its head is the checkpoint's
        weights += fitted_to(classes, model, settings, folder)
    elif config.dataset.objective in (*LANGUAGE, Objective.seq2seq):
        log.warning("model.path: a head that writes tokens begins at random: %s", weights)
    return Loaded(model, weights, different, digest)


def load_tokenizer(folder: Path, config: RunConfig) -> Any:
    """The tokenizer of `folder`. Raises UserError where it cannot be loaded.

    A folder without a vocabulary is refused: transformers would make a tokenizer that knows no word.
    """
    hf_config = from_folder("configuration", folder, lambda _: _configuration(folder, config, 0))

    def load(folder: Path) -> Any:
        with tokenizer_files(folder) as files:
            tokenizer = AutoTokenizer.from_pretrained(
                files, config=hf_config, trust_remote_code=False, local_files_only=True
            )
        if not set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids):
            raise FileNotFoundError(NO_VOCABULARY)
        return tokenizer

    tokenizer = from_folder("tokenizer", folder, load)
    tokenizer.name_or_path = str(folder)
    return tokenizer


def _configuration(folder: Path, config: RunConfig, classes: int) -> PretrainedConfig:
    """The folder's architecture, with our fields over its own."""
    saved = PretrainedConfig._decode_special_floats(read_json(folder / "config.json"))
    wanted = architecture_of(config.model).model_type
    kind = saved.get("model_type", wanted)
    if wanted and kind != wanted:
        raise UserError(
            f"model.path: {folder} holds a model of type {kind}; model={config.model.name} is a {wanted}"
        )
    if saved.get("quantization_config"):
        raise _quantised(folder, "its config.json says so")
    if not kind:
        raise UserError(
            f"model.path: config.json in {folder} names no model_type; write the architecture's there, or "
            "set model.architecture.model_type"
        )
    cls = configuration_class(kind, f"model.path: config.json in {folder}")
    fields = with_stated_rates(config, described(cls, saved))
    return settled(config, cls(**fields | hf_fields(config, classes)))


def _quantised(folder: Path, why: str) -> UserError:
    return UserError(
        f"model.path: the weights in {folder} are quantised ({why}) and cannot be trained; "
        "give the checkpoint in fp32, bf16 or fp16"
    )


def _saved_as(saved: Mapping[str, Tensor]) -> str:
    others = {tensor.dtype for tensor in saved.values() if tensor.is_floating_point()} - {torch.float32}
    return f", saved in {' and '.join(sorted(map(_short, others)))}" if others else ""


def _fitted(
    folder: Path, model: PreTrainedModel, info: Mapping[str, Any], saved: Mapping[str, Tensor]
) -> str:
    """Says which weights of the head are random, and which weights of the checkpoint were left out.

    Raises UserError where the body is not the checkpoint's, weight for weight.
    """

    def place(name: str) -> str:
        return name.removeprefix(f"{model.base_model_prefix}.").partition(".")[0]

    body = {name for name, _ in model.base_model.named_children()} - {"pooler"}  # not every task has a pooler
    if model.base_model is model:  # its head stands among the parts of its body
        body &= plain_parts(model.config)
    fresh = sorted({entry[0] for entry in info["mismatched_keys"]} | set(info["missing_keys"]))
    if lacking := [name for name in fresh if place(name) in body]:
        held = next((name for name in saved if name.endswith(f".{lacking[0]}")), "")
        raise UserError(
            f"model.path: the weights in {folder} lack {lacking[0]} or have it in another shape "
            f"({len(lacking)} such); "
            + (
                f"they hold {held}: save the model without what wraps it"
                if held
                else "give a complete checkpoint"
            )
        )
    others = sorted(name for name in info["unexpected_keys"] if name not in saved or _is_weight(saved[name]))
    if beyond := [name for name in others if place(name) in body]:
        raise UserError(
            f"model.path: the weights in {folder} hold {beyond[0]} ({len(beyond)} such), which a model of "
            "its config.json does not have; give the config.json that they were saved with"
        )
    left_out = sorted({place(name) for name in others})
    return (f", random: {', '.join(fresh)}" if fresh else "") + (
        f", left out: {', '.join(left_out)}" if left_out else ""
    )


def _is_weight(tensor: Tensor) -> bool:
    """Whether a tensor is a weight: position numbers and causal masks of older versions are none."""
    return tensor.is_floating_point() and tensor.ndim > 0


def _owned(tensor: Tensor) -> Tensor:
    """Returns a copy, in fp32 where floating: the tensor may be mapped from the file and change with it."""
    return tensor.to(torch.float32, copy=True) if tensor.is_floating_point() else tensor.clone()


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def from_folder(what: str, folder: Path, load: Callable[[Path], _T]) -> _T:
    """Returns `load(folder)`; raises UserError, which names `what` was loaded, for whatever goes wrong."""
    try:
        return load(folder)
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        message = f"{type(error).__name__}: {reason}"
        raise UserError(f"model.path: the {what} in {folder} cannot be loaded: {message}") from None
