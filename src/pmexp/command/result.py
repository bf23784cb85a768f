"""Says in one line what a run has reached, for the person who waited for it."""

from pmexp.config import RunConfig
from pmexp.metrics.catalog import metric_of
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.summary import Summary, read_summary


def result_line(config: RunConfig) -> str:
    """Returns the scores and the loss of a run with a result, on the test split or else on validation, its
    peak memory and its speed; why, where memory did not suffice. Raises UserError for a damaged summary."""
    summary = read_summary(RunFolder(config.folder).summary)
    assert summary
    if summary.error:
        return f"out of memory: {summary.error}"
    return ", ".join([*_scores(summary, config.dataset.metrics), *_costs(summary)])


def _scores(summary: Summary, metrics: list[str]) -> list[str]:
    split = "test" if "test/loss" in summary.metrics else "val"
    names = [f"{split}/{name}" for name in (*metrics, "loss")]
    return [
        f"{metric_of(name).label} {summary.metrics[name]:.4g}" for name in names if name in summary.metrics
    ]


def _costs(summary: Summary) -> list[str]:
    told = summary.metrics
    peak = [f"peak memory {bytes_ / 2**20:,.0f} MiB"] if (bytes_ := told.get("memory/peak_bytes")) else []
    speed = [f"{rate:,.4g} samples/s"] if (rate := told.get("speed/samples_per_s")) else []
    return peak + speed
