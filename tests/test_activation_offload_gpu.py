"""Offloaded activations on a CUDA device: bits of the gradient, memory, and copies that come late."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from pmexp.activation_offload import Shelf, _link, offloaded_activations

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
MB = 2**20
CUDA = torch.device("cuda")
LATE = 50_000_000  # cycles that a stream sleeps: tens of milliseconds, longer than all of backward


@contextmanager
def window(size: int) -> Iterator[None]:
    shelf = Shelf(_link(torch.cuda.current_device()), window=size)
    with saved_tensors_hooks(shelf.pack, shelf.unpack):
        yield


CONTEXTS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "as it is": partial(offloaded_activations, CUDA),
    "at once": partial(window, 0),
    "8 MB": partial(window, 8 * MB),
}
each_context = pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)


class Block(nn.Module):
    """Saves tensors of 4 MB, some of them twice, and views of one storage."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.wide, self.back = nn.LayerNorm(512), nn.Linear(512, 1536), nn.Linear(512, 512)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.wide(self.norm(x)).chunk(3, -1)
        mixed = (q @ k.transpose(-1, -2) / 512**0.5).softmax(-1) @ v
        return x + torch.dropout(self.back(torch.nn.functional.gelu(mixed)), 0.1, True)


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(Block() for _ in range(8))).to(CUDA)


def step(blocks: nn.Sequential, context: AbstractContextManager[None]) -> list[Tensor]:
    torch.manual_seed(1)
    x = torch.randn(8, 256, 512, device=CUDA)
    with context:
        loss = blocks(x).square().mean()
    loss.backward()
    grads = [parameter.grad for parameter in blocks.parameters()]
    blocks.zero_grad(set_to_none=True)
    return grads


def assert_same(actual: list[Tensor], expected: list[Tensor]) -> None:
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


@each_context
def test_gradients_are_the_same_bit_for_bit(context: Callable[[], AbstractContextManager[None]]) -> None:
    """They are so step after step, which uses memory of both sides again, and on a stream of one's own."""
    blocks = model()
    expected = step(blocks, nullcontext())
    for _ in range(3):
        assert_same(step(blocks, context()), expected)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            assert_same(step(blocks, context()), expected)


@pytest.mark.parametrize("late", ["out", "back", "both"])
@each_context
def test_copies_that_come_late(context: Callable[[], AbstractContextManager[None]], late: str) -> None:
    """Nothing is used before it is there, and no memory that is still copied has another use."""
    blocks, link = model(), _link(torch.cuda.current_device())
    expected = step(blocks, nullcontext())
    streams = {"out": [link._out], "back": [link._back], "both": [link._out, link._back]}[late]
    for _ in range(2):
        for stream in streams:
            with torch.cuda.stream(stream):
                torch.cuda._sleep(LATE)
        assert_same(step(blocks, context()), expected)


@each_context
def test_checkpointing_and_autocast(context: Callable[[], AbstractContextManager[None]]) -> None:
    blocks = model()

    def loss(inside: AbstractContextManager[None]) -> list[Tensor]:
        torch.manual_seed(1)
        x = torch.randn(8, 256, 512, device=CUDA, requires_grad=True)
        with inside, torch.autocast("cuda", torch.bfloat16):
            y = x
            for block in blocks:
                y = checkpoint(block, y, use_reentrant=False)
            y.float().square().mean().backward()
        grads = [parameter.grad for parameter in blocks.parameters()]
        blocks.zero_grad(set_to_none=True)
        return grads

    assert_same(loss(context()), loss(nullcontext()))


def peak(blocks: nn.Sequential, context: AbstractContextManager[None]) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_stats()["active_bytes.all.current"]
    step(blocks, context)
    torch.cuda.synchronize()
    return int(torch.cuda.memory_stats()["active_bytes.all.peak"]) - before


def test_memory_is_bounded_however_far_the_host_is_ahead(
    record_property: Callable[[str, object], None],
) -> None:
    """The copies out begin tens of milliseconds late, when the host has long launched all of forward."""
    blocks, link = model(), _link(torch.cuda.current_device())
    step(blocks, nullcontext())
    whole, small = peak(blocks, nullcontext()), peak(blocks, window(8 * MB))
    with torch.cuda.stream(link._out):
        torch.cuda._sleep(LATE)
    late = peak(blocks, window(8 * MB))
    record_property("peak bytes: plain, offloaded, offloaded with late copies", (whole, small, late))
    assert late == small < 0.6 * whole


def test_time_beside_the_synchronous_copies(record_property: Callable[[str, object], None]) -> None:
    """It only reports."""
    blocks = model()
    contexts = {"plain": nullcontext, "save_on_cpu": partial(save_on_cpu, pin_memory=True), **CONTEXTS}
    for name, context in contexts.items():
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        for _ in range(3):
            step(blocks, context())
        begin.record()
        for _ in range(10):
            step(blocks, context())
        end.record()
        end.synchronize()
        record_property(f"ms a step, {name}", begin.elapsed_time(end) / 10)
