"""Loads the dataset of ``robustness.ood``: samples of the same classes and another distribution."""

from pmexp import datasets
from pmexp.config import RunConfig
from pmexp.datasets.base import Dataset
from pmexp.errors import UserError


def load_ood(config: RunConfig, dataset: Dataset) -> Dataset | None:
    """The dataset of `robustness.ood`. Raises UserError where it cannot be had or is of other classes."""
    if config.robustness.ood is None:
        return None
    ood = datasets.load(config.robustness.ood)
    if ood.classes != dataset.classes:
        raise UserError(
            f"robustness.ood: {config.robustness.ood.name} has the classes {_few(ood.classes)} and "
            f"dataset={config.dataset.name} has {_few(dataset.classes)}; choose one of the same classes"
        )
    if ood.test is None:
        raise UserError(
            f"robustness.ood: {config.robustness.ood.name} has no labelled test split; choose another"
        )
    return ood


def _few(classes: list[str]) -> str:
    return ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
