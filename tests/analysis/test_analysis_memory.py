"""Which memory a page speaks of: the tensors of a step where runs recorded them, and the process by its name."""

import pytest
from matplotlib.figure import Figure

from pmexp_analysis import plots
from pmexp_analysis.figures import of_section
from pmexp_analysis.pages.content import Content
from pmexp_analysis.pages.headline import headlines
from pmexp_analysis.pages.tables import result_table
from run_folders import Runs

MIB = 2.0**20
TENSORS, PROCESS = "memory/peak_tensor_bytes", "memory/peak_bytes"
RESIDENT = "peak resident set of the process while training (VmHWM)"
ALLOCATOR = "CUDA allocator (max_memory_allocated)"


def content(runs: Runs, source: str, *metrics: str) -> Content:
    """The report of a pair of runs: with pm-drop tensors take a half, and the process a tenth less."""
    for seed in range(2):
        for variant, tensors, process in (("baseline", 20, 500), ("pm-drop", 10, 450)):
            values = {
                TENSORS: tensors * MIB, PROCESS: process * MIB, "memory/saved_bytes": 8 * MIB,
                "speed/samples_per_s": 100.0 + seed, "test/accuracy": 0.9,
            }  # fmt: skip
            finals = {metric: values[metric] for metric in ("speed/samples_per_s", "test/accuracy", *metrics)}
            runs.finished(variant, seed, finals, environment={"peak_memory_source": source})
    return runs.content()


def figures(report: Content) -> dict[str, tuple[str, Figure]]:
    looks = plots.styles(report.variants, "baseline")
    drawn = of_section(report.experiment, report.sections[0], looks, "")
    return {one.name: (one.caption, one.figure) for one in drawn}


@pytest.mark.parametrize(
    ("metrics", "said", "change"),
    [
        ((TENSORS, PROCESS), "cuts the peak tensor memory of a step by 50.0%", ("tensors change", "-50.0%")),
        (
            (PROCESS,),
            "changes the peak memory of the whole process by -10.0% (2 pairs",
            ("process change", "-10.0%"),
        ),
    ],
)
def test_a_headline_names_the_memory_that_it_speaks_of(
    runs: Runs, metrics: tuple[str, ...], said: str, change: tuple[str, str]
) -> None:
    report = content(runs, RESIDENT, *metrics)
    (section,) = report.sections
    assert said in headlines(section)[0]
    table = result_table(section)
    assert change in zip(table.headings, table.cells[1], strict=True)
    labels = " ".join(panel.get_xlabel() for panel in figures(report)["pareto"][1].axes)
    assert ("tensor" in labels) == (TENSORS in metrics) and ("process" in labels) == (TENSORS not in metrics)


def test_a_headline_says_of_a_sampled_peak_what_it_rests_on(runs: Runs) -> None:
    runs.sample(PROCESS, baseline=[100.0, 101.0, 99.0, 100.0], packed=[99.0, 101.5, 99.5, 99.0])
    (said,) = (headlines(section)[0] for section in runs.content().sections)
    assert said.startswith("packed changes the peak memory of the whole process by -0.3% (Holm p=0.")
    assert said.endswith(", not settled, n=4).")


@pytest.mark.parametrize(
    ("source", "metrics", "label"),
    [
        (RESIDENT, (TENSORS, PROCESS), "peak of live tensors"),
        (ALLOCATOR, (TENSORS, PROCESS), "peak of live tensors"),
        (ALLOCATOR, (PROCESS,), "peak of CUDA's allocator"),
        (RESIDENT, (PROCESS,), None),  # most of a process is no part of any bar
    ],
)
def test_the_breakdown_marks_the_peak_of_tensors(
    runs: Runs, source: str, metrics: tuple[str, ...], label: str | None
) -> None:
    caption, figure = figures(content(runs, source, "memory/saved_bytes", *metrics))["memory"]
    (legend,) = figure.legends
    named = [text.get_text() for text in legend.get_texts()]
    assert named == ["other tensors saved for backward", *([label] if label else [])]
    assert caption.endswith(f"; diamonds mark the {label}." if label else "one training step.")
    (panel,) = figure.axes
    marked = [float(line.get_xdata()[0]) for line in panel.lines]
    assert marked == ([] if label is None else [20.0, 10.0] if TENSORS in metrics else [500.0, 450.0])
