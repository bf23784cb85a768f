"""Nested tensors, jagged and strided, drop as nn.Dropout does; what is no dense tensor is refused by name."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.masked import masked_tensor

from dropout_cases import SAVED_BYTES, VARIANTS, Dropout, each_dropout, each_variant
from pmexp.packed_dropout import dropped_matmul, packed_bias_dropout_add, packed_dropout
from pmexp.variants.forward_unpack import forward_unpack_dropout
from pmexp.variants.gates import packed_relu
from saved_tensors import saved_by

each_layout = pytest.mark.parametrize("layout", [torch.jagged, torch.strided], ids=str)
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{kind}:UserWarning")
    for kind in (
        "API of nested tensors",
        "Sparse CSR tensor support",
        "API of MaskedTensors",
        "for MaskedTensor",
    )
]


def nested(layout: torch.layout) -> Tensor:
    rows = [torch.ones(300, 5), torch.ones(41, 5)]
    return torch.nested.nested_tensor(rows, layout=layout, requires_grad=True)


@each_layout
@each_variant
def test_drops_and_saves_as_the_values_alone_would(name: str, layout: torch.layout) -> None:
    x = nested(layout)
    y, saved = saved_by(lambda: VARIANTS[name](x, 0.4))
    assert y.is_nested and y.layout == x.layout and y.size(0) == 2
    assert [tensor.nbytes for tensor in saved[1:]] == [SAVED_BYTES[name](341 * 5)]  # the first is values()'s
    (x + y).values().sum().backward()
    assert torch.equal(x.grad.values(), 1 + y.values())
    assert 0.5 < (y.values() != 0).double().mean() < 0.7


@each_layout
def test_with_the_masks_of_nn_dropout(layout: torch.layout) -> None:
    results = []
    for drop in (F.dropout, partial(packed_dropout, rng="torch")):
        x = nested(layout)
        torch.manual_seed(3)
        y = drop(x, 0.4)
        (y * y).values().sum().backward()
        results.append((y.values(), x.grad.values()))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@each_layout
@each_dropout
def test_modes_rates_and_views(drop: Dropout, layout: torch.layout) -> None:
    x = nested(layout)
    assert torch.equal(drop(x, 0.4, False).values(), x.values())
    assert not drop(x, 1.0).values().any()
    turned = x.detach().transpose(1, 2)
    assert (drop(turned, 0.4) + turned).is_nested
    work = x.detach() * 1.0
    assert torch.equal(drop(work, 0.4, True, True).values(), work.values())


@each_layout
def test_the_other_functions(layout: torch.layout) -> None:
    x = nested(layout)
    assert torch.equal(packed_relu(x).values(), x.values())
    assert forward_unpack_dropout(x).is_nested
    added = packed_bias_dropout_add(x, None, x, 0.4).values()
    assert ((added == 1) | (added > 2)).all()


def test_a_jagged_product_recomputes_nothing_and_is_right() -> None:
    assert dropped_matmul(nested(torch.jagged), torch.ones(5, 2), 0.4).values().shape == (341, 2)


def test_compiled() -> None:
    x = nested(torch.jagged)
    y = torch.compile(partial(packed_dropout, p=0.4), fullgraph=True, backend="aot_eager")(x)
    y.values().sum().backward()
    assert torch.equal(x.grad.values(), y.values())


@each_dropout
def test_what_is_no_dense_tensor_is_refused_by_name(drop: Dropout) -> None:
    eye = torch.eye(4)
    for tensor, kind in (
        (eye.to_sparse(), r"torch\.sparse_coo"),
        (eye.to_sparse_csr(), r"torch\.sparse_csr"),
        (eye.to_mkldnn(), r"torch\._mkldnn"),
        (masked_tensor(eye, eye > 0), "MaskedTensor"),
    ):
        with pytest.raises(TypeError, match=kind):
            drop(tensor)
