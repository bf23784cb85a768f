"""The C++ core's instruction sets, and inputs and comparisons for the tests of it."""

import pytest
import torch
from torch import Tensor

from pmexp.packed_dropout import cpu

BACKENDS = cpu.available_backends()
needs_core = pytest.mark.skipif(not BACKENDS, reason="installed without a C++ compiler: no core to test")
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
WIDTHS = [1, 2, 4]
LARGE = 200_003  # several chunks for the threads, and a tail
each_backend = pytest.mark.parametrize("backend", BACKENDS)
each_width = pytest.mark.parametrize("bits", WIDTHS)


def assert_same(actual: Tensor, expected: Tensor) -> None:
    """Compares dtype, shape, strides and bits, the sign of zero included; any NaN equals any other."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if actual.numel() > 1:
        assert actual.stride() == expected.stride()
    if not actual.is_floating_point():
        assert torch.equal(actual, expected)
        return
    assert torch.equal(actual.isnan(), expected.isnan())
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[actual.element_size()]
    unequal = actual.contiguous().view(integer) != expected.contiguous().view(integer)
    assert not (unequal & ~actual.isnan()).any()


def values(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5)).to(dtype)
