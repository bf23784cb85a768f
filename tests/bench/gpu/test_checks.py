"""Losses of steps with the same masks are compared bit for bit; a variant that drops otherwise is named."""

from typing import Any

import pytest
import torch
from torch import nn

from pmexp.bench.gpu import checks, workload
from pmexp.bench.gpu.workload import Size
from pmexp.errors import ContenderFailed
from pmexp.packed_dropout import PackedDropout, replace_dropout

CPU = torch.device("cpu")
TINY = Size("tiny", 4, 16, {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 99})  # fmt: skip


@pytest.mark.parametrize("name", [workload.TORCH_MASKS, "seed-only", "pm-drop-recompute"])
def test_a_variant_that_drops_otherwise_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = "philox" if name == workload.TORCH_MASKS else "torch"
    monkeypatch.setitem(
        workload.PUT_IN, name, lambda module: replace_dropout(module, PackedDropout, bits=1, rng=rng)
    )
    with pytest.raises(ContenderFailed, match=f"^{name} under eager attention in bf16: losses"):
        checks.check_losses(TINY, "eager", "bf16", CPU)


def test_a_backward_that_differs_each_time_is_compared_up_to_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients with noise of their own, as of a kernel whose order of summation is not settled."""
    assert checks.check_losses(TINY, "eager", "fp32", CPU).endswith("over 3 of 3 steps")
    clip = nn.utils.clip_grad_norm_
    seeds = iter(range(10**6))

    def noisy(parameters: Any, norm: float) -> None:
        every = list(parameters)
        generator = torch.Generator().manual_seed(next(seeds))
        for parameter in every:
            parameter.grad.add_(torch.randn(parameter.shape, generator=generator))
        clip(every, norm)

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", noisy)
    assert checks.check_losses(TINY, "eager", "fp32", CPU).endswith("over 1 of 3 steps")
