"""Every figure, drawn: with few and many variants, long names, odd numbers; warnings are errors here."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, product
from unittest.mock import patch

import pandas as pd
import pytest
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from pmexp_analysis import plots
from pmexp_analysis.plots import Axis, Cell, Cosine, Effect, Fit, Level, Point, Share, Stack, styles

LONG = ["baseline", *(f"pm-drop-zero2-flash-tempo-{number}" for number in range(7))]


@dataclass(frozen=True)
class Case:
    """Variants, the first of them the baseline; numbers of seeds, steps and panels; a value a running number."""

    variants: list[str]
    seeds: int
    steps: int
    value: Callable[[int], float]
    panels: int = 1

    def looks(self) -> dict[str, plots.Style]:
        return styles(self.variants, self.variants[0])

    def curves(self) -> pd.DataFrame:
        rows = [
            (variant, seed, metric, "nats", float(step), self.value(place + seed + step))
            for metric in ("train/loss", "val/loss", "val/accuracy")
            for place, variant in enumerate(self.variants)
            for seed in range(self.seeds)
            for step in range(self.steps)
        ]
        return pd.DataFrame(rows, columns=["variant", "seed", "metric", "unit", "step", "value"])


CASES = {
    "eight long names": Case(LONG, 3, 200, lambda i: 1e3 + 50 * math.sin(i), panels=3),
    "one of all": Case(["baseline", "pm-drop"], 1, 1, lambda i: 0.5),
    "odd numbers": Case(["baseline", "pm-drop", "4bit"], 2, 4, lambda i: (1.0, math.nan, 0.0, -0.001)[i % 4]),
    "12 decades": Case(["baseline", "pm-drop", "no-cache"], 2, 5, lambda i: 10.0 ** (i % 5 * 3 - 6)),
}
NEARLY_EQUAL = {"nearly equal": Case(["baseline", "pm-drop"], 2, 3, lambda i: 1234.0 + 1e-12 * (i % 3))}


def pareto(case: Case) -> Figure:
    axes = [
        Axis("memory/saved_bytes", "bytes", "min"),
        Axis("speed/recomputed_flops_per_step", "FLOP", "none"),
        Axis("test/accuracy", "fraction", "max"),
    ][: 1 + max(1, case.panels - 1)]
    points = [
        Point(
            variant,
            f"{variant}: test accuracy 0.961±0.015",
            tuple((case.value(i + k), 0.1) for k in range(3)),
        )
        for i, variant in enumerate(case.variants)
    ]
    return plots.pareto(axes, points, case.looks())


def convergence(case: Case) -> Figure:
    return plots.convergence(
        case.curves(), ["train/loss", "val/loss", "val/accuracy"][: case.panels], case.looks()
    )


def loss_difference(case: Case) -> Figure:
    return plots.loss_difference(case.curves(), "train/loss", "baseline", case.looks())


def scaling(case: Case) -> Figure:
    levels = [
        Level(task, variant, setting, (case.value(i + k), 0.05) if i + k < len(case.variants) + 2 else None)
        for task in ("memory/longformer-base-4096", "bert/sst2")[: case.panels]
        for i, variant in enumerate(case.variants)
        for k, setting in enumerate((128, 129, 256, 1024, 4096, 16384))
    ]
    return plots.scaling(
        levels, "sequence length [tokens]", "memory/peak_bytes", "bytes", "min", case.looks()
    )


def breakdown(case: Case) -> Figure:
    categories = ["parameters", "gradients", "optimizer", "dropout masks", "other saved for backward", "rest"]
    stacks = [
        Stack(variant, {c: abs(case.value(i + k)) for k, c in enumerate(categories)}, 6 * abs(case.value(i)))
        for i, variant in enumerate(case.variants)
    ]
    return plots.breakdown(stacks, categories, "peak of live tensors")


def kernel_share(case: Case) -> Figure:
    return plots.kernel_share(
        [Share(v, (case.value(i), 0.05), (case.value(i + 1), 0.0)) for i, v in enumerate(case.variants)]
    )


def largest(case: Case) -> Figure:
    sizes = [abs(case.value(i)) for i in range(len(case.variants))]
    fits = [Fit(v, size if math.isfinite(size) else 0.0, i % 2 == 1) for i, (v, size) in enumerate(zip(case.variants, sizes, strict=True))]  # fmt: skip
    return plots.largest(
        {"largest batch [sequences]": fits, "largest context [tokens]": fits}, "baseline", case.looks()
    )


def forest(case: Case) -> Figure:
    verdicts = ["better", "worse", "identical", "inconclusive", "not comparable"]
    effects = [
        Effect(
            metric,
            "1",
            "min",
            v,
            case.value(i),
            case.value(i) - 1,
            case.value(i) + 10.0**i,
            0.2 * i,
            verdicts[i % 5],
        )
        for metric in ("speed/recomputed_flops_per_step", "train/loss")[: case.panels]
        for i, v in enumerate(case.variants)
    ]
    return plots.forest(effects)


def update_cosine(case: Case) -> Figure:
    cosines = [
        Cosine(v, seed, range(case.steps), [min(1.0, case.value(i + seed + k)) for k in range(case.steps)])
        for i, v in enumerate(case.variants)
        for seed in range(case.seeds)
    ]
    return plots.update_cosine(cosines, case.looks())


def heat_map(case: Case) -> Figure:
    cells = [
        Cell(across, up, (case.value(i + k), 0.01) if i + k else None, "out of memory")
        for i, across in enumerate((1e-5, 3e-5, 1e-4)[: len(case.variants)])
        for k, up in enumerate((0.0, 0.1, 0.3)[: case.steps])
    ]
    return plots.heat_map(cells, "learning rate", "dropout", "test/accuracy", "fraction", "max", (1e-5, 0.0))


FIGURES = [
    pareto, convergence, loss_difference, scaling, breakdown, kernel_share, largest, forest, update_cosine, heat_map,
]  # fmt: skip


def boxes_of_texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every text that drawing `figure` draws, with its box in pixels."""
    drawn: list[Text] = []
    draw = Text.draw

    def record(text: Text, renderer: RendererBase) -> None:
        if text.get_visible() and text.get_text():
            drawn.append(text)
        draw(text, renderer)

    with patch.object(Text, "draw", record):
        figure.draw_without_rendering()
    return [(text.get_text(), text.get_window_extent()) for text in drawn]


@pytest.mark.parametrize(
    ("make", "case"),
    [*product(FIGURES, CASES), *product([pareto, convergence, scaling], NEARLY_EQUAL)],
)
def test_no_text_overlaps_another_or_is_cut(make: Callable[[Case], Figure], case: str) -> None:
    figure = make((CASES | NEARLY_EQUAL)[case])
    boxes = boxes_of_texts(figure)
    edge = figure.bbox.padded(0.5)
    cut = [text for text, box in boxes if not (edge.x0 <= box.x0 and box.x1 <= edge.x1 and edge.y0 <= box.y0 and box.y1 <= edge.y1)]  # fmt: skip
    assert cut == []
    assert [(one, other) for (one, a), (other, b) in combinations(boxes, 2) if a.padded(-0.5).overlaps(b.padded(-0.5))] == []  # fmt: skip


@pytest.mark.parametrize("make", FIGURES)
def test_nothing_finite_is_no_error(make: Callable[[Case], Figure]) -> None:
    make(Case(["baseline", "pm-drop"], 2, 3, lambda i: math.nan))
