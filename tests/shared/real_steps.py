"""Two training steps of plain PyTorch on the CPU, and the most that its allocator had given away."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def precision(name: str) -> AbstractContextManager[object]:
    return torch.autocast("cpu", torch.bfloat16) if name == "bf16" else nullcontext()


def real_peak(
    build: Callable[[], nn.Module], inputs: dict[str, Tensor], labels: Tensor, name: str = "fp32"
) -> int:
    """The highest sum of what torch's CPU allocator gave and took back, but for inputs and labels."""
    with torch.profiler.profile(
        profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True
    ) as profile:
        model = build()
        trained = [parameter for parameter in model.train().parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained)
        for _ in range(2):
            with precision(name):
                loss = F.cross_entropy(model(**inputs).logits.float().flatten(0, -2), labels.flatten())
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    live = peak = 0
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak + sum(tensor.nbytes for tensor in (*inputs.values(), labels))
