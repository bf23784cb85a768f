"""`robustness.*`: what a trained model is tested on beside its own test split."""

from dataclasses import dataclass

from pmexp.config.checks import check_between
from pmexp.config.dataset import OF_TARGETS, DatasetConfig


@dataclass(kw_only=True)
class RobustnessConfig:
    """Holds the keys of `robustness`: what else a trained model is tested on."""

    fgsm: float | None = None  # step of a pixel in [0, 1], against validation images; null: no attack
    ood: DatasetConfig | None = None  # another dataset of the same classes, whose test split is tested too

    def __post_init__(self) -> None:
        if self.fgsm is not None:
            check_between("robustness.fgsm", self.fgsm, 0.0, 1.0, open_low=True)

    @property
    def without_effect(self) -> set[str]:
        """Keys that change nothing: only the other dataset's test split is used, by the run's own metrics,
        padding and generation."""
        unused = {"metrics", "padding", "val_fraction", *OF_TARGETS}
        unused = unused | self.ood.without_effect if self.ood else set()
        return {f"ood.{key}" for key in unused}
