"""Reads GELU's derivative off GELU's output.

GELU(x) = x * cdf(x) falls from 0 to its minimum m = GELU(x_m), x_m = -0.75, and rises from there. So an
output y and the side of the minimum that its input was on determine the input, and with it the derivative D.
It is looked up in a table over

    v = s             on the rising side,  s = sqrt(y - m)
    v = q - s - q0    on the falling side, q = sqrt(-y), q0 = sqrt(-m)

D is smooth in v throughout: s takes the square root out of the inverse at the minimum, q that of the tail,
where y goes to 0 like -|x| exp(-x^2/2) and D like -|x| |y|. Between CELLS + 1 nodes in v the table is linear.
Its nodes are solved for by bisection in float64, in the two forms of GELU: "erf", and "tanh" (Hendrycks and
Gimpel, 2016).

Error of D, where the saved y is off by d from GELU(x): u |y|, with u the unit roundoff of its dtype, and what
the forward adds (in float32 1e-8 to 1e-7; m itself, in float32, adds ROUNDED_MINIMUM):

    |error| <= TABLE_ERROR + 2 d               for x >= 0, where |dD/dy| <= 1.6
    |error| <= TABLE_ERROR + sqrt(d) + 9 d     for x <  0

The root of d is the minimum's: there D is 0, an output says its input no better than to sqrt(d), and
D changes by at most sqrt(2 GELU''(x_m) d) = 0.93 sqrt(d). At a distance t from x_m the error is about d / t:
all but a share of sqrt(d) of the elements have one of the order of d. The last term is the far tail, where
dD/dy goes like |x|. With torch's
GELU the largest is 3e-4 in float32, 7e-3 in float16, 1.5e-2 in bfloat16; the mean over
[-9, 9] is 1e-7, 8e-5 and 5e-4, of which stock GELU's own rounding has 3e-8, 6e-5 and 4e-4.

The bits of D follow from y where square roots are correctly rounded, as CUDA's are. MKL's, which torch takes
on the CPU, miss that by a bit in one number of 150: D is then off by OTHER_ROOT at most.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Form = Literal["erf", "tanh"]

ARGMIN: dict[Form, float] = {"erf": -0.7517915246935645, "tanh": -0.7524614220710162}  # x_m: where D is 0

CELLS = 8192
# Linear interpolation in float32 arithmetic errs so far (3e-7 exactly computed); a test looks between all
# nodes.
TABLE_ERROR = 5e-7
ROUNDED_MINIMUM = 7.5e-9  # half a step of float32 at m
OTHER_ROOT = 2e-7  # the last bit of both roots changes D by so much
_LAST = 2.6  # v of x = 6.6, above which D is 1 to 1e-8
LARGEST_SQUARE = _LAST * _LAST
NEARLY_0 = 1e-20  # the square root of an exact 0 takes seven times as long in torch's CPU kernel

_CUBIC = 0.044715
_ROOT = math.sqrt(2.0 / math.pi)


@cache
def argmin(form: Form, dtype: torch.dtype) -> float:
    """Returns the place of the minimum as a comparison of torch rounds it."""
    return torch.tensor(ARGMIN[form], dtype=dtype).item()


def gelu(x: Tensor, form: Form) -> Tensor:
    """GELU without the cancellation of 1 + erf in the lower tail, which torch's has."""
    if form == "erf":
        return 0.5 * x * torch.erfc(-x / math.sqrt(2.0))
    return x * torch.sigmoid(2.0 * _ROOT * (x + _CUBIC * x**3))


def derivative(x: Tensor, form: Form) -> Tensor:
    """GELU' from the input: what the table is made of, and the reference of its tests."""
    if form == "erf":
        return 0.5 * torch.erfc(-x / math.sqrt(2.0)) + x * torch.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
    inner = 2.0 * _ROOT * (x + _CUBIC * x**3)
    cdf = torch.sigmoid(inner)
    return cdf + x * cdf * torch.sigmoid(-inner) * 2.0 * _ROOT * (1.0 + 3.0 * _CUBIC * x * x)


class DerivativeTable(NamedTuple):
    """Holds D(v) = intercept + slope * v of each cell."""

    minimum: float
    q0: float
    first: float  # the v of the first node
    cells_a_unit: float  # so many cells lie in a unit of v
    intercept: Tensor  # (CELLS,)
    slope: Tensor  # (CELLS,)


def bisect(low: Tensor, high: Tensor, is_low: Callable[[Tensor], Tensor]) -> Tensor:
    """Where `is_low` turns from true to false between `low` and `high`, to the last bit of float64."""
    for _ in range(80):
        middle = 0.5 * (low + high)
        up = is_low(middle)
        low, high = torch.where(up, middle, low), torch.where(up, high, middle)
    return 0.5 * (low + high)


def input_of(y: Tensor, rising: Tensor, form: Form) -> Tensor:
    """The input with output `y` on the given side of the minimum. Float64, slow."""
    x_m = ARGMIN[form]
    low = torch.where(rising, x_m, -40.0).double()
    high = torch.where(rising, 40.0, x_m).double()
    return bisect(low, high, lambda x: (gelu(x, form) < y) == rising)


@cache
def table(form: Form, device: torch.device, dtype: torch.dtype) -> DerivativeTable:
    """Returns the table, made once for each form, device and dtype: 64 KB in float32."""
    minimum = gelu(torch.tensor(ARGMIN[form], dtype=torch.float64), form).item()
    q0 = math.sqrt(-minimum)
    v = torch.linspace(-2.0 * q0, _LAST, CELLS + 1, dtype=torch.float64)
    rising = v >= 0
    # On the falling side s and q are the legs of a right triangle over q0: s - q = -v - q0.
    difference = -v - q0
    s = torch.where(rising, v, 0.5 * (difference + torch.sqrt((2.0 * q0**2 - difference**2).clamp(min=0))))
    d = derivative(input_of(minimum + s * s, rising, form), form)
    d[0] = 0.0  # y = 0 is x = -inf
    slope = (d[1:] - d[:-1]) / (v[1:] - v[:-1])
    intercept = d[:-1] - slope * v[:-1]
    first = v[0].item()
    lines = (intercept.to(device, dtype), slope.to(device, dtype))
    return DerivativeTable(minimum, q0, first, CELLS / (_LAST - first), *lines)


def derivative_from_output(y: Tensor, falling: Tensor, form: Form) -> Tensor:
    """Returns D for outputs `y` of GELU.

    Args:
        y: float32 or float64, (n,). An infinity gives 1, a NaN gives NaN.
        falling: Boolean, (n,): the input was below that of the minimum.

    Returns:
        (n,), of y's dtype.
    """
    curve = table(form, y.device, y.dtype)
    s = (y - curve.minimum).clamp_(NEARLY_0, LARGEST_SQUARE).sqrt_()
    v = y.neg().clamp_(NEARLY_0, -curve.minimum).sqrt_()
    v = v.sub_(s, alpha=2.0).sub_(curve.q0)  # the falling v, less s
    v = torch.addcmul(s, falling.view(torch.uint8).to(y.dtype), v)
    cell = (v - curve.first).mul_(curve.cells_a_unit).to(torch.int32).clamp_(0, CELLS - 1)
    # The product and the sum have to round one by one: addcmul fuses the two on some machines.
    return curve.slope.index_select(0, cell).mul_(v).add_(curve.intercept.index_select(0, cell))
