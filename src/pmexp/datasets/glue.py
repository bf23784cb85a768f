"""Writes predictions on GLUE's test splits, as its server takes them."""

from collections.abc import Sequence
from pathlib import Path

from pmexp.run_folder.files import write_atomically

# By the dataset's subset on the hub: the server knows its tasks by file names.
FILE_NAMES = {"mrpc": "MRPC.tsv", "sst2": "SST-2.tsv"}


def write_glue_predictions(file: Path, predictions: Sequence[str]) -> None:
    """Writes a header and `index<TAB>prediction`, a line for each sample of test in order, numbered from 0.

    file: named as in FILE_NAMES. Written whole or not at all.
    predictions: names of classes, as the task's own files have them.
    """
    lines = ["index\tprediction", *(f"{index}\t{label}" for index, label in enumerate(predictions))]
    write_atomically(file, "\n".join(lines) + "\n")
