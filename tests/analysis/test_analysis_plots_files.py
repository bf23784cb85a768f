"""Figures as files: all kinds, the same bytes again, fonts inside; and the words on them."""

import re
import zlib
from io import BytesIO
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from pmexp_analysis.plots import (
    Axis,
    Effect,
    Point,
    Stack,
    breakdown,
    forest,
    kernel_share,
    largest,
    pareto,
    png,
    save,
    styles,
)
from pmexp_analysis.plots.text import inches, plain_ticks, short, wrapped


def figure() -> Figure:
    return breakdown([Stack("baseline", {"parameters": 2.0**20}, None)], ["parameters"], "peak")


def test_save_writes_png_pdf_and_svg_with_fonts_and_equal_figures_are_equal_bytes(tmp_path: Path) -> None:
    first, second = save(figure(), tmp_path / "exp.1"), save(figure(), tmp_path / "again")
    assert first == [tmp_path / f"exp.1.{ending}" for ending in ("png", "pdf", "svg")]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    content = first[1].read_bytes()
    streams = re.findall(rb"FlateDecode.*?stream\r?\n(.*?)\r?\nendstream", content, re.S)
    everything = b"\n".join([content, *map(zlib.decompress, streams)])
    assert b"/FontFile2" in everything and b"/Type3" not in everything
    assert b"CreationDate" not in everything
    assert b"/Subtype /Image" not in everything  # vectors
    drawn = first[2].read_text()
    assert "<svg" in drawn and "<image" not in drawn and "<dc:date" not in drawn


def test_the_png_has_200_dots_an_inch() -> None:
    made = figure()
    with Image.open(BytesIO(png(made))) as picture:
        assert picture.size == pytest.approx(200 * made.get_size_inches(), abs=1)


def test_figures_grow_with_their_rows_and_long_names_have_a_page() -> None:
    def size(names: list[str]) -> tuple[float, float]:
        width, height = breakdown(
            [Stack(name, {"a": 1.0}, None) for name in names], ["a"], "peak"
        ).get_size_inches()
        return float(width), float(height)

    few, many, long = size(["a", "b"]), size(list("abcdefgh")), size(["a", "pm-drop-zero2-flash-tempo"])
    assert many[1] > few[1] + 1 and many[0] == few[0]
    assert long[0] == 6.75


def test_figures_are_a_column_or_a_page_wide() -> None:
    looks = styles(["baseline", "a"], "baseline")
    axes = [Axis("memory/saved_bytes", "bytes", "min"), Axis("speed/samples_per_s", "samples/s", "max")]
    points = [Point(name, name, ((1.0, 0.1), (2.0, 0.1))) for name in looks]
    effect = Effect("test/accuracy", "fraction", "max", "a", 0.1, 0.0, 0.2, None, "better")
    widths = [made.get_figwidth() for made in (pareto(axes, points, looks), forest([effect]), figure())]
    widths.append(pareto([*axes, axes[0]], points[:0], looks).get_figwidth())
    assert set(widths) == {3.25, 6.75}


def test_nothing_to_draw_is_an_error() -> None:
    for make in (
        lambda: breakdown([], [], "peak"),
        lambda: kernel_share([]),
        lambda: largest({"b": []}, "a", {}),
    ):
        with pytest.raises(ValueError, match="no row or no panel to draw"):
            make()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1234.5, "1234"), (1e6, "1000000"), (1e7, "1e7"), (1e-7, "1e\N{MINUS SIGN}7"), (-2.5e-4, "\N{MINUS SIGN}2.5e\N{MINUS SIGN}4"), (0.001, "0.001"),
     (float("nan"), "nan"), (81920.0, "81920"), (0.12345, "0.123"), (float("inf"), "inf")],
)  # fmt: skip
def test_short_numbers(value: float, text: str) -> None:
    assert short(value) == text


def test_labels_are_broken_to_their_width_and_lose_nothing() -> None:
    text = "share of drawing, applying and packing masks of pm-drop-zero2-flash-tempo"
    broken = wrapped(text, 1.0)
    assert max(inches(line) for line in broken.split("\n")) <= 1.0
    assert re.sub(r"\s", "", broken) == re.sub(r"\s", "", text)


@pytest.mark.parametrize("span", [1e-9, 1e-3, 1.0, 1e5])
@pytest.mark.parametrize("middle", [0.0, 1.0, 1234.5, -3e5])
def test_ticks_differ_and_have_no_offset(middle: float, span: float) -> None:
    axes = Figure().subplots()
    axes.set_xlim(middle - span, middle + span)
    plain_ticks(axes.xaxis, 4)
    texts = axes.xaxis.get_major_formatter().format_ticks(axes.get_xticks())
    assert len(set(texts)) == len(texts) >= 2
    assert axes.xaxis.get_major_formatter().get_offset() == ""
