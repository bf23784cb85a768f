"""Tells what a checkpoint does not hold of modules of somebody's own: what they keep beside parameters and
persistent buffers, which a run that goes on has at its first values."""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pmexp.measure.method_state import in_slots
from pmexp.shown import counted, first_five

_NOT_OWN = ("torch", "transformers", "pmexp", "peft")  # whose modules keep nothing else, or caches


def digests_of(model: nn.Module) -> dict[str, str]:
    """Returns, by its path, a digest of each tensor and number that modules of one's own keep and no
    checkpoint holds."""
    return {path: _digest(value) for path, value in _unsaved(model)}


def resumed_without(model: nn.Module, then: dict[str, str]) -> str:
    """Says what `digests_of` had otherwise when the checkpoint was written; empty where nothing is lost."""
    now = digests_of(model)
    lost = [path for path, digest in then.items() if now.get(path) != digest]
    if not lost:
        return ""
    return (
        f"the checkpoint does not hold {counted(len(lost), 'value')} that modules of your own have changed: "
        f"{first_five(lost)}; register them as persistent buffers"
    )


def _unsaved(model: nn.Module) -> Iterator[tuple[str, object]]:
    for path, module in model.named_modules():
        if type(module).__module__.partition(".")[0] in _NOT_OWN:
            continue
        transient = {name: module._buffers[name] for name in module._non_persistent_buffers_set}
        kept = {**vars(module), **in_slots(module)}
        plain = {name: each for name, each in kept.items() if not name.startswith("_")}
        for name, value in {**transient, **plain}.items():
            if isinstance(value, Tensor | int | float) and name != "training":
                yield f"{path}.{name}".lstrip("."), value


def _digest(value: object) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    if type(value) is not Tensor or value.layout is not torch.strided or value.is_meta or value.is_quantized:
        return f"{type(value).__name__} {tuple(value.shape)}"  # its bytes cannot be had alike of each kind
    content = value.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.blake2b(content.numpy().tobytes(), digest_size=8).hexdigest()
