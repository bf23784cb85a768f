"""forward_unpack_dropout saves a byte an element, compiled too. test_seeded.py holds that its masks are packed_dropout's."""

import torch

from pmexp.variants.forward_unpack import forward_unpack_dropout
from saved_tensors import saved_by


def test_saves_a_byte_an_element() -> None:
    x = torch.randn(3, 37, requires_grad=True)
    _, saved = saved_by(lambda: forward_unpack_dropout(x, 0.3))
    assert [(t.dtype, t.shape) for t in saved] == [(torch.bool, x.shape)]


def test_compiled_it_is_the_same() -> None:
    x = torch.randn(5, 33, requires_grad=True)
    results = []
    for call in (
        forward_unpack_dropout,
        torch.compile(forward_unpack_dropout, backend="aot_eager", fullgraph=True),
    ):
        torch.manual_seed(4)
        y = call(x, 0.3)
        results.append((y, torch.autograd.grad(y.sum(), x)[0]))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
