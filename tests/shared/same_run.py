"""What two tries of one run must share, bit for bit: every step once, every value that is not a measurement."""

import json
from collections import Counter
from pathlib import Path

import pytest

from pmexp.run_folder.journal_lines import read_lines

_Record = tuple[int, str, float | None]  # step, metric, value
# These depend on the machine and not on the training.
_MEASURED = ("speed/", "memory/peak_bytes", "energy/", "inference/ms_per_sample", "gpu/")


def deterministic(folder: Path) -> list[_Record]:
    """(step, metric, value) in the journal's order."""
    records = [record for record, _ in read_lines(folder / "journal.jsonl")]
    return [
        (record["step"], record["metric"], record["value"])
        for record in records
        if not record["metric"].startswith(_MEASURED)
    ]


def _apart(records: list[_Record]) -> tuple[list[_Record], list[float | None]]:
    """The records, without the values of those that count bytes of tensors, and these values."""
    of_tensors = [record for record in records if record[1].endswith("_tensor_bytes")]
    without = [
        (step, metric, None) if (step, metric, value) in of_tensors else (step, metric, value)
        for step, metric, value in records
    ]
    return without, [value for _, _, value in of_tensors]


def measured(folder: Path) -> list[str]:
    records = [record for record, _ in read_lines(folder / "journal.jsonl")]
    return [record["metric"] for record in records if record["metric"].startswith(_MEASURED)]


def weights(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / "checkpoints").glob("best-*.safetensors")}


def assert_same_run(one: Path, other: Path, ranks: bool = False) -> None:
    """Asserts that two run folders have the same journal (but for times), measurements and weights.

    ranks: the run is one on several processes. Its bytes of tensors need only be close: DDP and DeepSpeed hold
    other buckets in a process's first step, and the step that is measured may be the first after a restart.
    """
    first, second = deterministic(one), deterministic(other)
    losses = [step for step, metric, _ in first if metric == "train/loss"]
    assert losses == list(range(1, len(losses) + 1)), f"a step is missing or there twice: {losses}"
    if ranks:
        first, bytes_of_first = _apart(first)
        second, bytes_of_second = _apart(second)
        assert bytes_of_first == pytest.approx(bytes_of_second, rel=0.01)
    assert first == second, "the journals differ"
    difference = Counter(measured(one)), Counter(measured(other))
    assert difference[0] == difference[1], f"not the same was measured: {difference}"
    assert weights(one) == weights(other), "the weights differ"


def assert_same_summary(one: Path, other: Path) -> None:
    """Asserts equal summaries, but for measurements of the machine, and the digest of the journal with its times."""
    first, second = (json.loads((folder / "summary.json").read_text()) for folder in (one, other))
    for summary in (first, second):
        summary["metrics"] = {
            name: None if name.startswith(_MEASURED) else value for name, value in summary["metrics"].items()
        }
        summary["journal"] = None
        for key in ("data_wait", "shared_cores"):
            summary["environment"].pop(key, None)
    assert first == second, "the summaries differ"


def assert_same_files(one: Path, other: Path) -> None:
    """Asserts that both folders have files of the same names: none is left that only an unfinished run needs."""
    first, second = ({str(file.relative_to(folder)) for file in folder.rglob("*")} for folder in (one, other))
    assert first == second, f"other files: {sorted(first ^ second)}"
