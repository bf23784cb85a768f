"""Entry point: ``python -m pmexp.data dataset=NAME`` prepares a dataset ahead, on a node with network.

Fetches or generates what is not there, goes on where it was stopped, verifies, and says where the data is.
Training then finds it without network; HF_HUB_OFFLINE=1 spares the attempts to reach the hub.
"""

import sys
from collections.abc import Sequence

from pmexp import logs
from pmexp.command.compose import compose_part
from pmexp.command.exit_code import exit_code
from pmexp.config import DatasetConfig
from pmexp.errors import UserError

_USAGE = """\
python -m pmexp.data dataset=NAME [dataset.KEY=VALUE ...]
  fetches or generates a dataset, verifies it, and prints its place and its splits
  dataset=listops         a name of conf/dataset
  dataset.path=FOLDER     verifies a local folder instead
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 bad input or not to be had, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(given):
        print(_USAGE, end="")
        return 0
    logs.to_terminal()
    return exit_code(
        lambda: print(prepare(_composed(given))), interrupted="interrupted: run the same command to go on"
    )


def prepare(config: DatasetConfig) -> str:
    """Makes the dataset ready and reads a sample of each end of each split; what there is, in lines."""
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
            lines.append(f"  {name}: {len(split)} samples")
    lines.append(f"  classes: {len(dataset.classes)}")
    return "\n".join(lines)


def _composed(arguments: list[str]) -> DatasetConfig:
    """The dataset alone: which model goes with it is no matter here."""
    other = [argument for argument in arguments if not argument.startswith(("dataset=", "dataset."))]
    if other or not any(argument.startswith("dataset=") for argument in arguments):
        raise UserError(f"{other[0] if other else 'dataset'}: give dataset=NAME and keys of dataset alone")
    config = compose_part("dataset", arguments)
    assert isinstance(config, DatasetConfig)
    return config


if __name__ == "__main__":
    sys.exit(main())
