"""Every look can be told from every other with any colour vision, and in grey print."""

from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.colors import to_hex, to_rgb

from pmexp_analysis.plots import grids, kernels, stacks, styles
from pmexp_analysis.plots.looks import COLOURS

Array = npt.NDArray[np.float64]
EIGHT = ["baseline", *(f"v{number}" for number in range(7))]

# Machado, Oliveira and Fernandes: A Physiologically-based Model for Simulation of Color Vision Deficiency, IEEE
# Transactions on Visualization and Computer Graphics 15(6), 2009: severity 1.0, on linear RGB.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> Array:
    """Linear RGB of an sRGB colour (IEC 61966-2-1)."""
    encoded = np.array(to_rgb(colour))
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def lab(rgb: Array) -> Array:
    """CIE 1976 L*a*b* of linear RGB, white D65."""
    ratios = TO_XYZ @ rgb / (TO_XYZ @ np.ones(3))
    x, y, z = np.where(ratios > (6 / 29) ** 3, np.cbrt(ratios), ratios / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def seen(colour: str, vision: str) -> Array:
    return lab(np.clip(VISIONS[vision] @ linear(colour), 0.0, 1.0))


def contrast(one: float, other: float) -> float:
    """The ratio of two relative luminances (WCAG 2.2)."""
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_the_simulated_eyes_leave_grey_grey() -> None:
    for matrix in VISIONS.values():
        np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=2e-6)  # six printed digits


@pytest.mark.parametrize("vision", VISIONS)
def test_the_colours_of_eight_variants_differ_for_every_eye(vision: str) -> None:
    looks = styles(EIGHT, "baseline").values()
    colours = [seen(look.colour, vision) for look in looks]
    nearest = min(float(np.linalg.norm(one - other)) for one, other in combinations(colours, 2))
    assert nearest > 10  # about 2.3 is just noticeable side by side


def test_eight_variants_differ_in_grey_print_by_marker_and_by_dash() -> None:
    looks = list(styles(EIGHT, "baseline").values())
    assert len({look.marker for look in looks}) == 8
    assert len({look.dash for look in looks}) == 8


def test_every_colour_is_seen_on_white() -> None:
    assert min(contrast(1.0, grids.luminance(to_rgb(colour))) for colour in COLOURS) > 2


@pytest.mark.parametrize("fills", [stacks.FILLS, kernels.FILLS])
def test_neighbouring_fills_differ_in_grey_print(fills: tuple[tuple[str, str], ...]) -> None:
    for (colour, hatch), (other, next_hatch) in pairwise(fills):
        assert abs(seen(colour, "normal")[0] - seen(other, "normal")[0]) > 10 or hatch != next_hatch


@pytest.mark.parametrize("count", [1, 8, 20])
def test_every_variant_looks_different(count: int) -> None:
    variants = ["baseline", *(f"v{number}" for number in range(count))]
    looks = styles(variants, "baseline")
    assert list(looks) == variants
    assert to_hex(looks["baseline"].colour) == "#000000"
    assert len({(look.colour, look.marker) for look in looks.values()}) == count + 1
