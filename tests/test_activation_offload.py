"""Activations on the way to the CPU and back: over a link whose copies happen only when somebody waits for them.

The link stands in for a CUDA device's streams. It fails where memory is let go under a copy, and what is read
before its copy was waited for is 0xFF.
"""

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint
from transformers import BertConfig, BertModel

from pmexp.activation_offload import Shelf, offloaded_activations
from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.packed_dropout import PackedDropout, replace_dropout
from saved_tensors import same_bits

KB = 1024
WINDOWS = [0, 3 * KB, 2**40]
each_window = pytest.mark.parametrize("window", WINDOWS)


@dataclass(eq=False)
class Copy:
    """Is an event that is over once it was waited for."""

    source: weakref.ref[Any]
    target: weakref.ref[Any]
    after: "Copy | None"
    over: bool = False

    def happen(self) -> None:
        if self.over:
            return
        if self.after:
            self.after.happen()
        source, target = self.source(), self.target()
        if target is not None:  # nobody reads any more what a link out has copied
            assert source is not None, "memory was let go under a copy"
            target.copy_(source)
        self.over = True


class Stream:
    def wait_event(self, copy: Copy) -> None:
        copy.happen()


CPU = torch.device("cpu")


@dataclass
class Link:
    device: torch.device = CPU
    stream: Stream = field(default_factory=Stream)
    sent: list[weakref.ref[Any]] = field(default_factory=list)  # storages of the "device"
    sizes: list[int] = field(default_factory=list)
    fetched: list[Copy] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def current_stream(self) -> Stream:
        return self.stream

    def send(self, there: Tensor) -> tuple[Tensor, Copy]:
        host = torch.full_like(there, 255)
        self.sent.append(weakref.ref(there))
        self.sizes.append(there.numel())
        return host, self._copy(there, host)

    def fetch(self, host: Tensor, sent: Copy) -> tuple[Tensor, Copy]:
        there = torch.full_like(host, 255)
        copy = self._copy(host, there, sent)
        self.fetched.append(copy)

        def gone() -> None:
            if not copy.over:
                self.faults.append("memory was let go under a copy into it")

        weakref.finalize(there.untyped_storage(), gone)
        return there, copy

    def waiting(self) -> int:
        """Bytes that forward has sent and still holds on the device."""
        return sum(there.numel() for ref in self.sent if (there := ref()) is not None)

    def _copy(self, source: Tensor, target: Tensor, after: Copy | None = None) -> Copy:
        return Copy(weakref.ref(source), weakref.ref(target), after)


@contextmanager
def offloading(link: Link, window: int = 0, smallest: int = 1) -> Iterator[None]:
    shelf = Shelf(link, None, window, smallest)  # type: ignore[arg-type]
    with saved_tensors_hooks(shelf.pack, shelf.unpack):
        yield
    assert not link.faults


def bert() -> BertModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertModel(BertConfig(vocab_size=99, attn_implementation="eager", **sizes)).train()
    replace_dropout(model, PackedDropout)
    return model


def gradients(model: BertModel, context: Any) -> list[Tensor]:
    torch.manual_seed(1)
    with context:
        loss = model(torch.arange(48).view(4, 12)).last_hidden_state.square().mean()
    loss.backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return grads


def chain(x: Tensor, steps: int = 6) -> Tensor:
    """Each step saves its input, a kilobyte a row of `x`."""
    for _ in range(steps):
        x = x.sin()
    return x.sum()


def kilobytes(rows: int = 1) -> Tensor:
    return torch.linspace(-2, 2, rows * 256).view(rows, 256).requires_grad_()


@each_window
def test_gradients_are_the_same_bit_for_bit(window: int) -> None:
    """A BERT with packed dropout has them, under a ledger, which counts the same."""
    model, link = bert(), Link()
    ledgers = [SavedForBackward(model), SavedForBackward(model)]
    expected = gradients(model, ledgers[0])
    with ledgers[1]:
        around = torch._C._autograd._top_saved_tensors_default_hooks(False)[0]
    shelf = Shelf(link, around, window, 1)  # type: ignore[arg-type]
    grads = gradients(model, saved_tensors_hooks(shelf.pack, shelf.unpack))
    assert all(torch.equal(a, b) for a, b in zip(grads, expected, strict=True))
    assert link.sent and not link.faults
    assert bool(link.fetched) == (window < 2**40)
    assert ledgers[1].total_bytes >= ledgers[0].total_bytes > 0


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_forward_leaves_no_more_on_the_device_than_the_window(rows: int) -> None:
    link, x = Link(), kilobytes(rows)
    y = x
    with offloading(link, window=3 * KB):
        for _ in range(8):
            y = y.sin()
            assert link.waiting() <= 3 * KB
    assert link.waiting() == 3 // rows * rows * KB
    y.sum().backward()
    assert link.waiting() == 0


def test_what_fills_the_window_is_not_fetched_and_the_rest_is_fetched_ahead() -> None:
    link, x = Link(), kilobytes()
    fetched = []
    with offloading(link, window=2 * KB):
        y = x
        for _ in range(6):
            y = y.sin()
            y.register_hook(lambda g: fetched.append(len(link.fetched)))
    y.sum().backward()
    # Before each of the ops' turns: the last two need no copy; two wait for their turn as soon as one had its.
    assert fetched == [0, 2, 2, 3, 4, 4]


def test_a_copy_larger_than_the_window_is_fetched_ahead_alone() -> None:
    link, x = Link(), kilobytes(4)
    with offloading(link, window=KB):
        loss = chain(x)
    loss.backward()
    assert len(link.fetched) == 6
    assert torch.equal(x.grad, torch.autograd.grad(chain(x), x)[0])


def test_a_storage_goes_once_and_comes_back_once() -> None:
    """It serves three products of one input, as in attention, and another view of it."""
    link, weights = Link(), [torch.randn(16, 16, requires_grad=True) for _ in range(3)]
    x = torch.randn(4, 8, 16, requires_grad=True)

    def loss() -> Tensor:
        y = x.sin()
        return sum((F.linear(y, w) for w in weights), y.transpose(0, 1).square()[:4].sum()).square().sum()

    expected = torch.autograd.grad(loss(), [x, *weights])
    with offloading(link):
        total = loss()
    sizes = [4 * x.numel()] * 3  # x, y, and the sum
    assert sorted(link.sizes)[-3:] == sizes
    for _ in range(2):
        before = len(link.fetched)
        got = torch.autograd.grad(total, [x, *weights], retain_graph=True)
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
        assert len(link.fetched) - before == len(link.sent)


@each_window
def test_what_was_changed_in_place_goes_again_or_is_refused(window: int) -> None:
    """A change under a copy that still runs is refused: some of the bytes may be new."""
    link, x = Link(), kilobytes()
    buffer = torch.ones(256)
    with offloading(link, window):
        y = x * buffer
        buffer.mul_(3)
        y = y * buffer
        assert len(link.sent) == 2
        y = chain(y)
    if window:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.backward()
    else:
        y.backward()
        assert torch.equal(x.grad, torch.autograd.grad(chain(3 * x), x)[0])


def test_the_next_tensor_at_an_address_is_another() -> None:
    link, products = Link(), []
    x = kilobytes()
    with offloading(link):
        for number in range(5):
            factor = torch.full((256,), float(number))
            products.append(x * factor)
            del factor
    assert torch.equal(torch.autograd.grad(sum(products).sum(), x)[0], torch.full_like(x, 10))


@each_window
def test_again_in_parts_and_twice_differentiated(window: int) -> None:
    link, x, z = Link(), kilobytes(), kilobytes()

    def loss() -> Tensor:
        return (x.sin() * z.cos()).square().sum() + x.exp().sum()

    def derivatives(of: Tensor) -> list[Tensor]:
        first = torch.autograd.grad(of, x, create_graph=True)[0]
        second = torch.autograd.grad(first.square().sum(), [x, z], retain_graph=True)
        return [
            first,
            *second,
            *torch.autograd.grad(of, z, retain_graph=True),
            *torch.autograd.grad(of, [x, z]),
        ]

    expected = derivatives(loss())
    with offloading(link, window):
        mine = loss()
    assert all(torch.equal(a, b) for a, b in zip(derivatives(mine), expected, strict=True))
    del mine
    assert not link.faults


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing(reentrant: bool) -> None:
    link, x = Link(), kilobytes()

    def loss() -> Tensor:
        y = x.sin()
        for _ in range(4):
            y = checkpoint(lambda t: t.sin().cos(), y, use_reentrant=reentrant)
        return y.sum()

    expected = torch.autograd.grad(loss(), x) if not reentrant else None
    if reentrant:
        loss().backward()
        expected, x.grad = (x.grad,), None
    with offloading(link):
        mine = loss()
    mine.backward()
    assert torch.equal(x.grad, expected[0])
    assert len(link.sent) == 5  # x, and the input of each


def test_a_graph_that_is_dropped_under_way() -> None:
    """It is dropped before backward, and in it, when copies are under way in both directions."""
    link, x = Link(), kilobytes()
    with offloading(link, 2 * KB):
        loss = chain(x)
    del loss
    gc.collect()

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            raise ValueError("half way")

    with offloading(link, 2 * KB):
        loss = chain(Fails.apply(chain(x).expand(1) * x))
    with pytest.raises(ValueError, match="half way"):
        loss.backward()
    del loss
    gc.collect()
    assert any(not copy.over for copy in link.fetched) is False and not link.faults


def test_forwards_one_after_the_other_are_apart() -> None:
    link, x = Link(), kilobytes()
    losses = []
    for factor in (1.0, 2.0, 3.0):
        with offloading(link, KB):
            losses.append(chain(x * factor))
    for loss in (losses[1], losses[0], losses[2]):
        loss.backward()
    expected = torch.autograd.grad(sum(chain(x * factor) for factor in (2.0, 1.0, 3.0)), x)[0]
    torch.testing.assert_close(x.grad, expected)


def test_what_stays() -> None:
    """Parameters and their views stay, small ones, views that no bytes tell; each is refused once changed."""
    link = Link()
    layer = nn.Linear(64, 64)
    small = torch.randn(3, 64, requires_grad=True)
    with offloading(link, smallest=KB):
        y = layer(small.conj())
        z = small * small.detach().to_sparse().to_dense()
    assert not link.sent
    with torch.no_grad():
        layer.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    z.sum().backward()


@given(
    offset=st.integers(0, 700),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    strides=st.lists(st.sampled_from([0, 1, 2, 7, 40]), min_size=3, max_size=3),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.bool, torch.int64, torch.complex128]),
    window=st.sampled_from(WINDOWS),
)
def test_any_view_comes_back_as_it_was(
    offset: int, sizes: list[int], strides: list[int], dtype: torch.dtype, window: int
) -> None:
    """It has its values, shape, strides, and its place to 512 bytes, on which a kernel may depend."""
    link = Link()
    shelf = Shelf(link, None, window, 1)  # type: ignore[arg-type]
    whole = torch.randint(0, 2, (1200,)).to(dtype)
    view = whole.as_strided(sizes, strides[: len(sizes)], offset)
    expected = view.clone()
    packed = shelf.pack(view)
    changed = window == 0  # when it has left the device
    if changed:
        whole.fill_(1)
    del whole, view
    actual = shelf.unpack(packed)
    assert actual.stride() == tuple(strides[: len(sizes)]) and actual.dtype == dtype
    assert actual.storage_offset() * actual.element_size() % 512 == offset * actual.element_size() % 512
    assert same_bits(actual, expected)


def test_on_a_cpu_device_nothing_moves_and_torch_keeps_watch() -> None:
    x = kilobytes()
    with offloaded_activations(torch.device("cpu")):
        y = x.sin()
        z = y.exp()
        z.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()
