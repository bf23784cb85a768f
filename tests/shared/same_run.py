"""What two tries of one run must share, bit for bit: every step once, every value that is not a measurement."""

import json
from collections import Counter
from pathlib import Path

from pmexp.run_folder.journal_lines import read_lines

_MEASURED = (
    "speed/",
    "memory/peak_bytes",
    "energy/",
    "inference/ms_per_sample",
    "gpu/",
)  # of the machine, not of the training


def deterministic(folder: Path) -> list[tuple[int, str, float | None]]:
    """(step, metric, value) in the journal's order."""
    records = [record for record, _ in read_lines(folder / "journal.jsonl")]
    return [
        (record["step"], record["metric"], record["value"])
        for record in records
        if not record["metric"].startswith(_MEASURED)
    ]


def measured(folder: Path) -> list[str]:
    records = [record for record, _ in read_lines(folder / "journal.jsonl")]
    return [record["metric"] for record in records if record["metric"].startswith(_MEASURED)]


def weights(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / "checkpoints").glob("best-*.safetensors")}


def assert_same_run(one: Path, other: Path) -> None:
    losses = [step for step, metric, _ in deterministic(one) if metric == "train/loss"]
    assert losses == list(range(1, len(losses) + 1)), f"a step is missing or there twice: {losses}"
    assert deterministic(one) == deterministic(other), "the journals differ"
    difference = Counter(measured(one)), Counter(measured(other))
    assert difference[0] == difference[1], f"not the same was measured: {difference}"
    assert weights(one) == weights(other), "the weights differ"


def assert_same_summary(one: Path, other: Path) -> None:
    """But for what was measured of the machine, and the digest of the journal, which holds the time."""
    first, second = (json.loads((folder / "summary.json").read_text()) for folder in (one, other))
    for summary in (first, second):
        summary["metrics"] = {
            name: None if name.startswith(_MEASURED) else value for name, value in summary["metrics"].items()
        }
        summary["journal"] = None
    assert first == second, "the summaries differ"


def assert_same_files(one: Path, other: Path) -> None:
    """By their names: nothing that only an unfinished run needs is left."""
    first, second = ({str(file.relative_to(folder)) for file in folder.rglob("*")} for folder in (one, other))
    assert first == second, f"other files: {sorted(first ^ second)}"
