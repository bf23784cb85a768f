"""In-place LayerNorm: stock outputs bit for bit, gradients within the stated bound, the output saved alone."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pmexp.systems.tempo import InplaceLayerNorm
from pmexp.systems.tempo.kept_columns import RATIO, kept_columns
from saved_tensors import saved_by

WIDTH = 96
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def norms(dtype: torch.dtype, small: bool) -> tuple[nn.LayerNorm, InplaceLayerNorm]:
    torch.manual_seed(1)
    stock = nn.LayerNorm(WIDTH)
    with torch.no_grad():
        stock.weight.uniform_(0.5, 1.5)
        stock.bias.uniform_(-0.5, 0.5)
        if small:  # none of these can be recovered from the output
            stock.weight[:5] = torch.tensor([0.0, 1e-30, -1e-3, 0.1, -0.0])
            stock.bias[:5] = torch.tensor([0.3, 0.1, 0.2, -0.5, 0.0])
    stock = stock.to(dtype)
    return stock, InplaceLayerNorm.like(stock)


def gradients(module: nn.LayerNorm, x: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(module(x), [x, module.weight, module.bias], grad)


@pytest.mark.parametrize("small", [False, True], ids=["trained", "small weights"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_output_and_gradients_are_within_the_bound(dtype: torch.dtype, small: bool) -> None:
    stock, inplace = norms(dtype, small)
    x, grad = (torch.randn(7, 11, WIDTH).to(dtype) for _ in range(2))
    assert torch.equal(inplace(x.clone().requires_grad_()), stock(x))
    kept = kept_columns(stock.weight, stock.bias, dtype)
    assert kept.tolist() == (list(range(5)) if small else [])
    (dx, dw, db), (sx, sw, sb) = ([t.double() for t in gradients(m, x, grad)] for m in (inplace, stock))
    # The arithmetic of the definition, in float64, from a normalised value that is off by `off`.
    u = 0.5 * torch.finfo(dtype).eps
    wide, weight = x.double(), stock.weight.double()
    rstd = (wide.var(-1, correction=0, keepdim=True) + stock.eps).rsqrt()
    h, gw = (wide - wide.mean(-1, keepdim=True)) * rstd, grad.double() * weight
    off = 4 * u * (h.abs() + RATIO)  # twice the bound: the forward's own h is off by as much
    mean_product = (gw * h).mean(-1, keepdim=True).abs() + (gw.abs() * off).mean(-1, keepdim=True)
    bound_x = rstd * (off * mean_product + h.abs() * (gw.abs() * off).mean(-1, keepdim=True))
    rounding = 4 * u * rstd * (gw.abs() + gw.abs().mean(-1, keepdim=True) + h.abs() * mean_product)
    assert ((dx - sx).abs() <= bound_x + rounding).all()
    bound_w = (grad.double().abs() * (off + 4 * u)).sum((0, 1))
    assert ((dw - sw).abs() <= bound_w + 8 * u * sw.abs()).all()
    if dtype.itemsize > 2:
        assert torch.equal(db, sb)
    else:  # stock sums in 16 bits, the core in float32, which is rounded once
        exact, sizes = grad.double().sum((0, 1)), grad.double().abs().sum((0, 1))
        assert ((db - exact).abs() <= u * exact.abs() + 77 * 2**-24 * sizes).all()
        assert (db - exact).norm() <= (sb - exact).norm()


def test_columns_that_are_kept() -> None:
    weight = torch.tensor([1.0, 0.0, 0.26, 0.24, -0.24, 1e-20])
    bias = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 0.0])
    assert kept_columns(weight, bias, torch.float32).tolist() == [1, 3, 4]
    assert kept_columns(weight, None, torch.float32).tolist() == [1]


@pytest.mark.parametrize("small", [False, True], ids=["trained", "small weights"])
def test_what_is_saved(small: bool) -> None:
    stock, inplace = norms(torch.float32, small)
    x, linear = torch.randn(7, 11, WIDTH, requires_grad=True), nn.Linear(WIDTH, 5)
    parameters = {p.data_ptr() for p in (*inplace.parameters(), *linear.parameters())}

    def distinct(module: nn.Module) -> int:
        saved = saved_by(lambda: linear(module(x)))[1]
        storages = {t.data_ptr(): t.untyped_storage().nbytes() for t in saved}
        return sum(size for place, size in storages.items() if place not in parameters)

    columns, rows = 5 * small, 7 * 11
    assert distinct(stock) == 4 * (2 * x.numel() + 2 * rows)
    assert distinct(inplace) == 4 * (x.numel() + rows + columns * rows) + 8 * columns


def test_eval_saves_what_stock_saves() -> None:
    stock, inplace = norms(torch.float32, True)
    x = torch.randn(4, WIDTH, requires_grad=True)
    (y, saved), (expected, by_stock) = saved_by(lambda: inplace.eval()(x)), saved_by(lambda: stock(x))
    assert torch.equal(y, expected)
    assert [t.shape for t in saved] == [t.shape for t in by_stock]
    with torch.no_grad():
        assert not inplace.train()(x).requires_grad


@pytest.mark.parametrize("input_dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_keeps_what_the_next_layer_does_not_cast(input_dtype: torch.dtype) -> None:
    """The CPU's LayerNorm leaves float32 as it is, which the next linear layer casts, and bfloat16 too."""
    stock, inplace = norms(torch.float32, False)
    x = torch.randn(4, WIDTH).to(input_dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y, saved = saved_by(lambda: inplace(x))
        expected = stock(x)
    of_output = input_dtype is torch.bfloat16
    assert torch.equal(y, expected) and y.dtype is input_dtype
    assert saved[0].data_ptr() == (y if of_output else x).data_ptr()
    actual, exact = (torch.autograd.grad(each.sum(), x)[0] for each in (y, expected))
    if not of_output:
        assert torch.equal(actual, exact)


@pytest.mark.parametrize("affine", [(False, False), (True, False)], ids=["plain", "no bias"])
def test_without_weight_or_bias_and_over_two_dimensions(affine: tuple[bool, bool]) -> None:
    stock = nn.LayerNorm((3, 8), elementwise_affine=affine[0], bias=affine[1]).double()
    inplace = InplaceLayerNorm.like(stock)
    x, grad = torch.randn(2, 5, 3, 8).double().requires_grad_(), torch.randn(2, 5, 3, 8).double()
    actual, expected = (torch.autograd.grad(module(x), x, grad)[0] for module in (inplace, stock))
    torch.testing.assert_close(actual, expected, rtol=1e-13, atol=1e-13)
    assert torch.autograd.gradcheck(inplace, x)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing(reentrant: bool) -> None:
    _, inplace = norms(torch.float32, True)
    x, grad = torch.randn(4, WIDTH, requires_grad=True), torch.randn(4, WIDTH)
    checkpoint(inplace, x, use_reentrant=reentrant).backward(grad)
    assert torch.equal(x.grad, gradients(inplace, x.detach(), grad)[0])


def test_compiled_it_is_stock() -> None:
    stock, inplace = norms(torch.float32, True)
    x, grad = torch.randn(4, WIDTH), torch.randn(4, WIDTH)
    compiled = torch.compile(inplace, fullgraph=True, backend="aot_eager")
    leaf = x.clone().requires_grad_()
    actual = torch.autograd.grad(compiled(leaf), leaf, grad)[0]
    torch.testing.assert_close(actual, gradients(stock, x, grad)[0])


def test_second_derivatives_are_refused_and_copies_work() -> None:
    stock, inplace = norms(torch.float32, False)
    x = torch.randn(4, WIDTH, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"create_graph=True: .* leave tempo out"):
        torch.autograd.grad(inplace(x).sum(), x, create_graph=True)
    assert list(inplace.state_dict()) == list(stock.state_dict()) and inplace.weight is stock.weight
    for twin in (copy.deepcopy(inplace), pickle.loads(pickle.dumps(inplace))):
        assert torch.equal(twin(x), inplace(x))
