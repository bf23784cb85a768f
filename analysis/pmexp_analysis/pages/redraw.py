"""Draws the main figures of a report again, from the results.csv and comparisons.csv that lie beside it.

    python figures.py                # a page wide (6.75 inches), into redrawn/ as PNG, PDF and SVG
    python figures.py --width 3.25   # a column wide

It needs matplotlib and pandas alone. For each task and system it draws `effects`, the change of memory, speed
and step time against the baseline with 95 % intervals, and `tradeoff`, the score and the throughput of each
variant over its memory. It is meant to be changed.
"""

import argparse
from pathlib import Path

import pandas as pd
from matplotlib import rcParams
from matplotlib.figure import Figure

HERE = Path(__file__).parent
EFFECTS = {
    "memory/saved_bytes": "saved for backward",
    "memory/peak_tensor_bytes": "peak tensor memory",
    "memory/peak_bytes": "peak memory of the whole process",
    "speed/samples_per_s": "throughput",
    "speed/step_ms": "step time",
}
PLACE = ["task", "system"]
MEMORY, THROUGHPUT, MIB = "memory/saved_bytes", "speed/samples_per_s", 2**20
rcParams.update({"font.size": 8, "pdf.fonttype": 42, "text.parse_math": False})


def effects(comparisons: pd.DataFrame, width: float) -> Figure | None:
    """A panel a metric: the change in percent of the baseline, with its interval where there is one."""
    known = comparisons[comparisons["relative_difference"].notna()]
    metrics = [metric for metric in EFFECTS if metric in set(known["metric"])]
    if not metrics:
        return None
    variants = list(dict.fromkeys(known["variant"]))
    height = (0.22 * len(variants) + 0.6) * len(metrics)
    figure = Figure(figsize=(width, height), layout="constrained")
    for panel, metric in zip(figure.subplots(len(metrics), squeeze=False)[:, 0], metrics, strict=True):
        own = known[known["metric"] == metric].set_index("variant").reindex(variants)
        change = 100 * own["relative_difference"]
        low = (change - 100 * own["relative_low"]).fillna(0).clip(lower=0)
        high = (100 * own["relative_high"] - change).fillna(0).clip(lower=0)
        panel.errorbar(change, range(len(variants)), xerr=[low, high], fmt="o", markersize=4)
        panel.axvline(0, color="black", linewidth=0.8)
        panel.set_yticks(range(len(variants)), variants)
        panel.set_ylim(len(variants) - 0.5, -0.5)
        panel.set_xlabel(f"{EFFECTS[metric]}, change against the baseline [%]")
    return figure


def tradeoff(results: pd.DataFrame, width: float) -> Figure | None:
    """Score and throughput over the bytes saved for backward: means with standard deviations."""
    means = results.pivot_table(index="variant", columns="metric", values="mean", sort=False)
    stds = results.pivot_table(index="variant", columns="metric", values="std", sort=False)
    stds = stds.reindex(index=means.index, columns=means.columns).fillna(0)
    best = results[(results["direction"] == "max") & results["metric"].str.match("(test|val)/")]
    metrics = [m for m in (*sorted(set(best["metric"]))[:1], THROUGHPUT) if m in means]
    if MEMORY not in means or not metrics:
        return None
    columns = len(metrics) if width > 4 else 1
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(width, 2.4 * rows + 0.2), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for panel, metric in zip(panels, metrics, strict=False):
        for variant in means.index:
            panel.errorbar(
                means.loc[variant, MEMORY] / MIB,
                means.loc[variant, metric],
                xerr=stds.loc[variant, MEMORY] / MIB,
                yerr=stds.loc[variant, metric],
                fmt="o",
                label=variant,
            )
        panel.set_xlabel("saved for backward [MiB]")
        panel.set_ylabel("throughput [samples/s]" if metric == THROUGHPUT else metric)
    figure.legend(*next(iter(figure.axes)).get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def main() -> None:
    """Draws both figures of every task and system."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--width", type=float, default=6.75, help="of a figure, in inches")
    parser.add_argument("--out", type=Path, default=HERE / "redrawn", help="the folder to write to")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for draw, name in ((effects, "comparisons.csv"), (tradeoff, "results.csv")):
        table = pd.read_csv(HERE / name) if (HERE / name).stat().st_size else pd.DataFrame(columns=PLACE)
        for number, (place, own) in enumerate(table.groupby(PLACE), start=1):
            figure = draw(own, options.width)
            if figure is not None:
                print(f"{number}-{draw.__name__}: {' / '.join(place)}")
                for ending in ("png", "pdf", "svg"):
                    figure.savefig(options.out / f"{number}-{draw.__name__}.{ending}", dpi=200)


if __name__ == "__main__":
    main()
