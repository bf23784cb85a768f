"""Distances in units in the last place, against counting with nextafter."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pmexp.parity.difference import difference, same_bits

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def further(x: Tensor, units: int) -> Tensor:
    """The number so many units above each."""
    for _ in range(units):
        x = torch.nextafter(x, torch.full_like(x, math.inf))
    return x


@given(st.floats(-100, 100), st.integers(1, 9), st.sampled_from(DTYPES))
def test_units_are_steps_to_the_next_number(value: float, units: int, dtype: torch.dtype) -> None:
    x = torch.tensor([1.0, value, 2.0], dtype=dtype)
    y = x.clone()
    y[1] = further(x[1], units)
    distance = difference(x, y)
    assert distance and (distance.units, distance.differing, distance.index) == (units, 1, (1,))
    assert (distance.a, distance.b) == (x[1].item(), y[1].item())


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_around_zero_and_the_largest_ones(dtype: torch.dtype) -> None:
    zeros = torch.tensor([0.0], dtype=dtype)
    signs = difference(zeros, -zeros)
    assert signs and (signs.units, signs.differing, signs.dropped_otherwise) == (0, 1, 0)
    small = further(zeros, 1)
    across = difference(-small, small)
    assert across and across.units == 2
    largest = torch.tensor([torch.finfo(dtype).max], dtype=dtype)
    far = difference(-largest, largest)
    assert far and far.units is not None and far.units > 2.0 ** (8 * dtype.itemsize - 2)


def test_what_is_not_finite_and_other_shapes_have_no_distance() -> None:
    one, nan = torch.ones(3), torch.tensor([1.0, math.nan, 1.0])
    assert same_bits(nan, nan.clone())
    distance = difference(one, nan)
    assert distance and distance.units is None and distance.index == (1,)
    shapes = difference(one, torch.ones(4))
    assert shapes and str(shapes) == "float32 of shapes [3] and [4]"
    flags = difference(torch.tensor([True, False]), torch.tensor([True, True]))
    assert flags and flags.differing == 1


def test_of_two_dtypes_the_coarser_one_is_counted_in() -> None:
    x = torch.tensor([1.0, 1.0])
    distance = difference(x, torch.tensor([1.0, 1 + 2**-6], dtype=torch.bfloat16))
    assert distance and (distance.dtype, distance.units, distance.differing) == ("float32 and bfloat16", 2, 1)
    same = difference(x, x.bfloat16())
    assert same and (same.units, same.differing) == (0, 0)
