"""Rows and comparisons as tables of text, and the report for the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pmexp import shown
from pmexp.shown import counted
from pmexp_analysis.criteria import Judged
from pmexp_analysis.criteria.byte_masks import is_bound
from pmexp_analysis.numbers.cells import (
    NOTHING,
    margin_probability,
    number,
    percent,
    probability,
    scaled,
    shown_unit,
    word,
)
from pmexp_analysis.numbers.compare import Comparison, Row
from pmexp_analysis.numbers.compared_cells import change, mean_std
from pmexp_analysis.numbers.hparams import Grid
from pmexp_analysis.numbers.scores import label_of
from pmexp_analysis.numbers.sections import Section
from pmexp_analysis.numbers.stats import describe
from pmexp_analysis.sources.experiment import Missing

_CELLS = (
    "memory/mask_bytes_per_element",
    "memory/saved_bytes",
    "memory/peak_tensor_bytes",
    "memory/peak_bytes",
    "speed/step_ms",
)
_HEADINGS = {
    "memory/mask_bytes_per_element": "mask B/element",
    "memory/saved_bytes": "saved MiB",
    "memory/peak_tensor_bytes": "tensors MiB",
    "memory/peak_bytes": "process MiB",
    "speed/step_ms": "step ms",
    "speed/samples_per_s": "samples/s",
    "speed/tokens_per_s": "tokens/s",
}

_MOST_SECTIONS, _MOST_LINES = 12, 40  # in a terminal


@dataclass(frozen=True)
class Table:
    """Headings and rows of text; every row has one cell a heading."""

    headings: list[str]
    cells: list[list[str]]


def result_table(section: Section) -> Table:
    """One line a variant: its scores, memory and speed, then the change of memory and speed against the
    baseline in percent of it, or in its unit where there is no ratio."""
    metrics = section.scores + [m for m in (*_CELLS, section.throughput) if m in section.metrics]
    against = [m for m in (section.memory, section.throughput) if m in section.metrics]
    headings = [
        "variant",
        "n",
        *map(_heading, metrics),
        *(f"{_heading(m).split()[0]} change" for m in against),
    ]
    cells = []
    for variant in section.variants:
        mine = [section.rows.get((variant, metric)) for metric in metrics]
        n = max((row.n for row in mine if row), default=0)
        cells.append([variant, str(n), *(mean_over(row, n) for row in mine)])
        cells[-1] += [change(section.comparisons.get((variant, metric))) for metric in against]
    return Table(headings, cells)


def mean_over(row: Row | None, n: int) -> str:
    """Returns the cell of a row, with its own number of seeds where that is less than the `n` of its line."""
    return f"{mean_std(row)} (n={row.n})" if row and 0 < row.n < n else mean_std(row)


def _heading(metric: str) -> str:
    """A column's name and unit, short enough for a terminal."""
    return _HEADINGS.get(metric, label_of(metric))


def comparison_table(section: Section) -> Table:
    """One line a (metric, variant) against the baseline, in the units people read."""
    headings = [
        "metric",
        "variant",
        "verdict",
        "n",
        "difference",
        "95% interval",
        "bootstrap 95%",
        "relative",
    ]
    headings += ["paired p", "Holm p", "Welch p", "margin", "TOST p", "d", "P(more)", "detectable", "remarks"]
    cells = []
    for metric in section.metrics:
        for variant in section.variants:
            one = section.comparisons.get((variant, metric))
            if one is not None:
                cells.append(_comparison_cells(one))
    return Table(headings, cells)


def _comparison_cells(one: Comparison) -> list[str]:
    unit = shown_unit(one.unit)

    def signed(value: float | None) -> str:
        if value is None:
            return NOTHING
        text = number(scaled(value, one.unit), digits=3)
        return text if text.startswith("-") or value == 0 else f"+{text}"

    def interval(low: float | None, high: float | None) -> str:
        return f"{signed(low)} to {signed(high)}" if low is not None else NOTHING

    sides = {one.variant: one.missing_seeds["variant"], one.baseline: one.missing_seeds["baseline"]}
    lacks = [
        f"{side} has no value of seed {', '.join(map(str, seeds))}" for side, seeds in sides.items() if seeds
    ]
    detectable = None if one.detectable is None else scaled(one.detectable, one.unit)
    return [
        f"{label_of(one.metric)} [{unit}]" if unit else label_of(one.metric),
        one.variant,
        word(one.verdict),
        str(one.n),
        signed(one.mean_difference),
        interval(one.ci_low, one.ci_high),
        interval(one.bootstrap_low, one.bootstrap_high),
        percent(one.relative_difference),
        probability(one.paired_p),
        probability(one.holm_p),
        probability(one.welch_p),
        one.margin or NOTHING,
        margin_probability(one.tost_p),
        NOTHING if one.effect_size is None else f"{one.effect_size:+.2f}",
        NOTHING if one.probability_greater is None else f"{one.probability_greater:.2f}",
        number(detectable, digits=3),
        "; ".join(filter(None, [one.note, *lacks])),
    ]


def criteria_table(judged: Sequence[Judged]) -> Table:
    """One line a criterion: result, value, the value had the baseline kept byte masks, threshold, why."""
    cells = [
        [one.claim, word(one.result), _value(one), _with_byte_masks(one), _threshold(one), one.why]
        for one in judged
    ]
    return Table(["claim", "result", "value", "with byte masks", "threshold", "reason"], cells)


def _value(one: Judged) -> str:
    return NOTHING if one.value is None else _of_statistic(one, one.value)


def _with_byte_masks(one: Judged) -> str:
    if one.value_with_byte_masks is None:
        return NOTHING
    said = _of_statistic(one, one.value_with_byte_masks)
    if one.value_with_byte_masks == one.value or not is_bound(one.metric):
        return said
    return f"{'≥' if one.statistic == 'times_smaller' else '≤'} {said}"


def _threshold(one: Judged) -> str:
    if one.comparison == "no_worse":
        return f"≤ {_of_statistic(one, one.threshold, signed=False)} worse"
    sign = {"at_least": "≥ ", "at_most": "≤ ", "within": "±"}[one.comparison]
    return sign + _of_statistic(one, one.threshold, signed=False)


def _of_statistic(one: Judged, value: float, signed: bool = True) -> str:
    if one.statistic == "relative_change":
        return f"{100 * value:+.2f}%" if signed else f"{100 * value:g}%"
    suffix = {"times_smaller": "x", "largest_ratio": "x", "difference_in_sigma": " sigma"}
    return number(value, digits=3) + suffix.get(one.statistic, "")


def grid_table(grid: Grid) -> Table:
    """One line a setting of a grid: the validation score over seeds; of the chosen one the test score."""
    headings = [*grid.keys, label_of(grid.metric), "n", label_of(grid.test_metric or "test"), "remarks"]
    cells = []
    for setting in grid.settings:
        is_chosen = setting.values == grid.chosen
        said = number(setting.mean) if setting.mean is not None else NOTHING
        score = said + (f"±{number(setting.std, 2)}" if setting.std else "")
        test = NOTHING
        if is_chosen and grid.test:
            sample = describe(np.array(list(grid.test.values())))
            test = number(sample.mean) + (f"±{number(sample.std, 2)}" if sample.std else "")
        ties = "" if is_chosen or setting.values not in grid.tied else "tied with the chosen one"
        remark = "; ".join(filter(None, [_chosen(grid) * is_chosen, ties, setting.why]))
        cells.append([*map(number, setting.values), score, str(setting.n), test, remark])
    return Table(headings, cells)


def _chosen(grid: Grid) -> str:
    return f"chosen ({grid.rule})" if grid.rule else "chosen"


def remarks(section: Section) -> list[str]:
    """Says which variants are one training, and of which the scores are equal without being one."""
    sentences = list(section.remarks)
    for variant in section.variants:
        equal = [
            metric
            for metric in section.scores
            if (one := section.comparisons.get((variant, metric)))
            and one.verdict == "equal"
            and not one.one_training_with
        ]
        if equal:
            sentences.append(
                f"{variant} and {section.baseline} have an equal score in every pair, in {', '.join(equal)}; "
                "which does not prove equal training."
            )
    return sentences


def missing_line(run: Missing) -> str:
    """One missing run by name, with why."""
    run_id = f" ({run.run_id})" if run.run_id else ""
    return f"{run.task} / {run.system} / {run.variant} seed {run.seed}{run_id}: {run.why}"


def aligned(table: Table) -> str:
    """The table as lines of text: the first column to the left, the others to the right."""
    right = [False, *[True] * (len(table.headings) - 1)]
    texts = shown.aligned([table.headings, *table.cells], right)
    return "\n".join([texts[0], "-" * len(texts[0]), *texts[1:]])


def terminal(
    parts: Sequence[Section],
    missing: Sequence[Missing],
    verdict: str,
    judged: Sequence[Judged],
    warnings: Sequence[str] = (),
) -> str:
    """The whole report for the terminal: the warnings come first, and the verdict last, where it is seen."""
    blocks = ["\n".join(_first(warnings))] if warnings else []
    for section in parts[:_MOST_SECTIONS]:
        block = [f"{section.task} / {section.system}", aligned(result_table(section)), *remarks(section)]
        if section.baseline not in section.variants:
            block.append(f"nothing to compare with: no finished run of '{section.baseline}'")
        blocks.append("\n".join(block))
    if len(parts) > _MOST_SECTIONS:
        blocks.append(f"and {counted(len(parts) - _MOST_SECTIONS, 'more comparison')}: see report.md")
    if missing:
        lines = _first([f"  {missing_line(run)}" for run in missing])
        blocks.append("\n".join([f"{counted(len(missing), 'missing run')}:", *lines]))
    said = warnings[:_MOST_LINES]
    lines = [f"  {word(one.result):<12} {one.claim}: {_not_again(one.why, said)}" for one in judged]
    blocks.append("\n".join([verdict, *lines]))
    return "\n\n".join(blocks)


def _not_again(why: str, said: Sequence[str]) -> str:
    """Returns `why` without the lines that stand above it already."""
    for line in said:
        why = why.replace(line, "see the first lines")
    return why


def _first(lines: Sequence[str]) -> list[str]:
    more = [f"  and {len(lines) - _MOST_LINES} more: see report.md"] if len(lines) > _MOST_LINES else []
    return [*lines[:_MOST_LINES], *more]
