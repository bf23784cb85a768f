"""Takes the step whose memory is asked for: forward, loss, backward, clipping, update; real or fake."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmexp.simulation.live_bytes import LiveBytes, Snapshot

_LR = 1e-4  # any value would do: memory does not depend on it
_CLIP_NORM = 1.0
# Micro-batches that are run: from the second on gradients lie beside activations, and a third takes no more.
MOST_RUN = 2

FORWARD, BACKWARD, BACKWARD_MIDDLE, BACKWARD_END, UPDATE = (
    *("forward", "backward", "backward, middle layers", "backward, first layer", "update"),
)


def peaks_of_training(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    labels: Tensor,
    counter: LiveBytes,
    *,
    forward: Callable[[], AbstractContextManager[object]] = nullcontext,
    layers: Sequence[nn.Module] = (),
    accumulate: int = 1,
    foreach: bool | None = None,
) -> dict[str, Snapshot]:
    """Takes a step of AdamW, which has its state by then, and returns the peak of each phase.

    Args:
        module: called as ``module(**inputs).logits``; those of its parameters are trained that require grad.
        labels: int64, (samples,) or (samples, positions).
        forward: a context around each forward and its loss, such as autocast.
        layers: the module's equal layers in their order; they cut the backward into phases.
        accumulate: micro-batches a step. From the second one on gradients lie beside the activations, and
            a third one takes no more, so that MOST_RUN of them are run.
        foreach: as in torch.optim.AdamW, which decides by the device where it is None.
    """
    module.train()
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=_LR, foreach=foreach)
    counter.follow(module, optimizer)
    counter.assign((*inputs.values(), labels), "activations")
    loss = partial(_loss, module, inputs, labels)
    return peaks_of_step(
        loss,
        optimizer,
        counter,
        forward=forward,
        layers=layers,
        micro_batches=min(accumulate, MOST_RUN),
        foreach=foreach,
    )


def peaks_of_step(
    loss: Callable[[], Tensor],
    optimizer: torch.optim.Optimizer,
    counter: LiveBytes,
    *,
    forward: Callable[[], AbstractContextManager[object]] = nullcontext,
    layers: Sequence[nn.Module] = (),
    micro_batches: int = 1,
    clip_norm: float | None = _CLIP_NORM,
    foreach: bool | None = None,
) -> dict[str, Snapshot]:
    """Takes a step whose optimizer has its state by then, and returns the peak of each phase.

    Args:
        loss: runs the model forward and returns the loss, of one element.
        optimizer: has the parameters that train.
        counter: follows the model and the optimizer already, and knows the batch.
        forward, layers: as of `peaks_of_training`.
        micro_batches: are all run.
        clip_norm: the norm that gradients are clipped to; None leaves them.
        foreach: as in torch.nn.utils.clip_grad_norm_.
    """
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    handles = _mark_backward(layers, counter)
    with counter:
        has_new_state = _make_state(optimizer)
        counter.forget_peaks()
        for _ in range(micro_batches):
            counter.enter(FORWARD)
            with forward():
                value = loss()
            counter.enter(BACKWARD)
            value.backward()
        counter.enter(UPDATE)
        idle = [parameter for parameter in has_new_state if parameter.grad is None]
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(trained, clip_norm, foreach=foreach)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    for handle in handles:
        handle.remove()
    return _without_state_of(idle, optimizer, counter)


def _without_state_of(
    idle: Sequence[Tensor], optimizer: torch.optim.Optimizer, counter: LiveBytes
) -> dict[str, Snapshot]:
    """Returns the peaks without the state of parameters that got no gradient, which no real step makes."""
    states = [value for parameter in idle for value in optimizer.state.pop(parameter, {}).values()]
    too_much = sum(counter.size_of(value) for value in states if isinstance(value, Tensor))
    return {
        phase: Snapshot({**peak.by_category, "optimizer": peak.by_category["optimizer"] - too_much})
        for phase, peak in counter.peaks.items()
    }


def _make_state(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Takes a step by a gradient of zeros, without a forward. Returns the parameters that had no state."""
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    new = [parameter for parameter in trained if not optimizer.state.get(parameter)]
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return new


def _loss(module: nn.Module, inputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
    """Returns the loss of the training loop: cross-entropy summed over samples, or over tokens, in fp32, and
    divided by their number.

    As there, logits of 16 bits are gone when their copy in fp32 is there.
    """
    flat = module(**inputs).logits.float().flatten(0, -2)
    return F.cross_entropy(flat, labels.flatten(), reduction="sum") / labels.numel()


def _mark_backward(layers: Sequence[nn.Module], counter: LiveBytes) -> list[Any]:
    """Hooks by which the backward enters its middle when the last layer is done, and its end at the first."""
    if len(layers) < 2:
        return []
    marks = {0: BACKWARD_END} | ({len(layers) - 2: BACKWARD_MIDDLE} if len(layers) > 2 else {})
    return [layers[place].register_forward_hook(_enters(phase, counter)) for place, phase in marks.items()]


def _enters(phase: str, counter: LiveBytes) -> Callable[[nn.Module, Any, Any], None]:
    """A forward hook after which `counter` enters `phase` once backward comes to the layer's output."""

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        if counter.phase == FORWARD and hidden.requires_grad:  # not when it is computed again in backward
            hidden.register_hook(lambda _: counter.enter(phase))

    return hook
