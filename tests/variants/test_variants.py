"""The variant `hooks` runs a forward under pack_saved_masks, in copies, threads and failures too."""

import copy
import pickle
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from pmexp.config import VariantConfig, Where
from pmexp.variants.replace import apply_variant
from saved_tensors import saved_by

hooks_now = torch._C._autograd._top_saved_tensors_default_hooks


class Block(nn.Module):
    def __init__(self, reentrant: bool | None = None) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(24, 24), nn.Dropout(0.25), nn.Linear(24, 24), nn.Dropout(0.25))
        self.reentrant = reentrant

    def forward(self, x: Tensor, fails: bool = False) -> Tensor:
        if fails:
            raise ArithmeticError("in the forward")
        if self.reentrant is None:
            return self.layers(x).masked_fill(x > 1, 0)
        return checkpoint(self.layers, x, use_reentrant=self.reentrant)


def block(dropout: str, reentrant: bool | None = None) -> Block:
    torch.manual_seed(0)
    model = Block(reentrant)
    apply_variant(model, VariantConfig(name="any", dropout=dropout))
    return model


def trained(model: Callable[[Tensor], Tensor], module: nn.Module) -> tuple[list[Tensor], list[int]]:
    """Gradients of one step, and the sizes of the masks and bits that it kept."""
    torch.manual_seed(1)
    x = torch.randn(32, 24, requires_grad=True)
    y, saved = saved_by(lambda: model(x))
    y.sum().backward()
    sizes = [t.untyped_storage().nbytes() for t in saved if t.dtype in (torch.bool, torch.uint8)]
    return [x.grad, *(p.grad for p in module.parameters())], sizes


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(first, second, strict=True))


BYTES, _ = trained(model := block("byte_mask"), model)


def test_it_keeps_every_mask_of_the_forward_at_one_bit() -> None:
    model = block("hooks")
    gradients, sizes = trained(model, model)
    assert sizes == [96, 96, 96] and same(gradients, BYTES)


def test_the_report_says_what_stands_there() -> None:
    report = apply_variant(Block(), VariantConfig(name="hooks", dropout="hooks", where=Where.hidden))
    assert (report.by, report.modules) == ("ByteMaskDropout under pack_saved_masks", ["layers.1", "layers.3"])


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_and_pickles_pack_too(twin: Callable[[nn.Module], nn.Module]) -> None:
    model = twin(block("hooks"))
    gradients, sizes = trained(model, model)
    assert sizes == [96, 96, 96] and same(gradients, BYTES)


def test_a_forward_that_fails_leaves_no_hook_behind() -> None:
    model = block("hooks")
    for bad in ({"fails": True}, {"unknown": 1}):
        with pytest.raises((ArithmeticError, TypeError)):
            model(torch.ones(2, 24), **bad)
        assert hooks_now(False) is None

    for prepend in (True, False):  # before the hooks are entered, and after
        before = model.register_forward_pre_hook(lambda *_: 1 / 0, prepend=prepend)
        with save_on_cpu():
            others = hooks_now(False)
            with pytest.raises(ZeroDivisionError):
                model(torch.ones(2, 24))
            assert hooks_now(False) == others
        before.remove()
    assert trained(model, model)[1] == [96, 96, 96]


def test_without_gradients() -> None:
    model = block("hooks")
    with torch.no_grad():
        assert not model(torch.ones(2, 24)).requires_grad
    assert torch.equal(model.eval()(torch.zeros(2, 24)), block("byte_mask").eval()(torch.zeros(2, 24)))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_draws_the_same_masks(reentrant: bool) -> None:
    plain, packed = block("byte_mask", reentrant), block("hooks", reentrant)
    assert same(trained(plain, plain)[0], trained(packed, packed)[0])


def test_forwards_of_several_threads_leave_no_hook_behind() -> None:
    """The first one to enter is the first one to leave."""
    entered, both, left = threading.Event(), threading.Event(), threading.Event()
    seen = []

    def forward(say: threading.Event, hear: threading.Event) -> None:
        def inside(*_: object) -> None:
            say.set()
            hear.wait(60)

        model = block("hooks")
        model.layers.register_forward_pre_hook(inside)
        _, saved = saved_by(lambda: model(torch.ones(32, 24)))
        seen.append((hooks_now(False), [t.numel() for t in saved if t.dtype is torch.uint8]))

    def first() -> None:
        forward(entered, both)
        left.set()

    def second() -> None:
        entered.wait(60)
        forward(both, left)

    threads = [threading.Thread(target=target) for target in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [(None, [96, 96, 96])] * 2


def test_compiled() -> None:
    plain, packed = (block(dropout) for dropout in ("byte_mask", "hooks"))
    results = []
    for module in (plain, packed):
        torch._dynamo.reset()
        results.append(trained(torch.compile(module, backend="aot_eager"), module))
    assert same(results[0][0], results[1][0])
    assert hooks_now(False) is None
    assert results[0][1] == [768, 768] and results[1][1] == [96, 96]
