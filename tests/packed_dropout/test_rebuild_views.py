"""Views of a dropped tensor are made again with it, or saved as they are where they read other numbers."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.multiprocessing.reductions import StorageWeakRef

from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.packed_dropout.rebuild import rebuilding, watching
from rebuilt_operands import DROP, WEIGHT

Around = Callable[[], AbstractContextManager[None]]


@contextmanager
def ledger() -> Iterator[None]:
    with SavedForBackward(nn.Module()):
        yield


@pytest.mark.parametrize("source", [F.gelu, lambda x: x * 1], ids=["of the graph", "held"])
@pytest.mark.parametrize(
    "parts",
    [
        lambda y: y.chunk(2, -1),
        lambda y: y.split([3, 5], -1),
        lambda y: [y.diagonal()],
        lambda y: y.unbind(),
        lambda y: [y.unfold(-1, 2, 2)],
        lambda y: [y.view(4, 16)],
    ],
    ids=["chunk", "split", "diagonal", "unbind", "unfold", "view"],
)
@pytest.mark.parametrize("around", [nullcontext, ledger])
def test_a_dropped_tensor_is_let_go_though_products_take_it_whole_and_in_parts(
    around: Around, parts: Callable[[Tensor], list[Tensor]], source: Callable[[Tensor], Tensor]
) -> None:
    gradients = []
    for again in (False, True):
        torch.manual_seed(3)
        x, weight = torch.randn(8, 8).requires_grad_(), WEIGHT.clone().requires_grad_()
        with around(), rebuilding() if again else nullcontext():
            input = source(x)
            dropped = DROP(input)
            memory = StorageWeakRef(dropped.untyped_storage())
            output = F.linear(dropped, weight).sum()
            for part in parts(dropped):
                output = output + (part * weight.view(-1)[: part.numel()].view(part.shape)).sum()
            del dropped, part
        assert memory.expired() == again
        gradients.append(torch.autograd.grad(output, (x, weight)))
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize("around", [nullcontext, ledger, save_on_cpu])
@pytest.mark.parametrize(
    "read",
    [torch.view_as_complex, lambda pairs: torch.view_as_complex(pairs).conj().imag],
    ids=["complex", "negated"],
)
def test_a_view_that_reads_other_numbers_is_saved_as_it_is(
    around: Around, read: Callable[[Tensor], Tensor]
) -> None:
    whole: list[str] = []
    gradients = []
    for again in (False, True):
        torch.manual_seed(3)
        x, weight = torch.randn(8, 8).requires_grad_(), WEIGHT.clone().requires_grad_()
        with watching(lambda _: None, whole.append), around(), rebuilding() if again else nullcontext():
            output = (read(DROP(F.gelu(x)).view(8, 4, 2)) * weight.view(8, 4, 2)[..., 0]).abs().sum()
        gradients.append(torch.autograd.grad(output, (x, weight)))
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    assert whole == ["it is a view that reads the dropped numbers as others (complex or negated ones)"]
