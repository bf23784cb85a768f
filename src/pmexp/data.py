"""Entry point: ``python -m pmexp.data dataset=NAME`` prepares a dataset ahead, on a node with network.

Fetches or generates what is not there, goes on where it was stopped, verifies, and says where the data is.
Training then finds it without network; HF_HUB_OFFLINE=1 spares the attempts to reach the hub.
"""

import sys
from collections.abc import Sequence

from pmexp import logs
from pmexp.command_line import Command, Given, Key, importing
from pmexp.errors import UserError
from pmexp.shown import counted, few

with importing("train"):
    from pmexp.command.compose import compose_part
    from pmexp.command.explain import explained
    from pmexp.command.meanings import keys_below
    from pmexp.command.overrides import searching
    from pmexp.command.schema import CONFIG_DIR, options
    from pmexp.config import DatasetConfig


def command() -> Command:
    """The command and its keys: `dataset` and all of `dataset.*`."""
    dataset = Key("dataset", f"a name of conf/dataset: {', '.join(options('dataset'))}", group="dataset")
    return Command(
        "pmexp.data",
        "fetches or generates a dataset, verifies it, and prints its place and its splits",
        (dataset, CONFIG_DIR, *keys_below("dataset.")),
        word="dataset",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 bad input or not to be had, 130 interrupted."""
    return command().run(arguments, _prepare, interrupted="interrupted: run the same command to go on")


@explained()
def _prepare(given: Given) -> None:
    if not given["dataset"]:
        raise UserError(f"dataset: give dataset=NAME; allowed are {', '.join(options('dataset'))}")
    logs.to_terminal()
    of_dataset = [each for each in given.set if not each.startswith(f"{CONFIG_DIR.name}=")]
    overrides = [*of_dataset, *searching(given.path(CONFIG_DIR.name))]
    config = compose_part("dataset", overrides)  # no model is needed to prepare data
    assert isinstance(config, DatasetConfig)
    print(prepare(config))


def prepare(config: DatasetConfig) -> str:
    """Makes the dataset ready, reads the ends of each split, and returns lines that describe the splits."""
    from pmexp import datasets  # imports much, for which a wrong key need not wait

    dataset = datasets.load(config)
    lines = [f"dataset={config.name}: {dataset.origin}"]
    splits = {
        "train": dataset.train,
        "val": dataset.val,
        "test": dataset.test,
        "test without labels": dataset.unlabelled_test,
    }
    for name, split in splits.items():
        if split is not None:
            _ = split.inputs[0], split.inputs[len(split) - 1]
            lines.append(f"  {name}: {counted(len(split), 'sample')}")
    labels = dataset.train.labels
    if dataset.classes:
        lines.append(f"  classes: {len(dataset.classes)} ({few(dataset.classes)})")
    elif len(labels) and labels.dtype.kind == "f":
        lines.append(f"  labels: numbers of {labels.min():g} to {labels.max():g}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
