"""`checkpoint.*`: how a run can be resumed. It changes no result, so it is no part of a run's identity."""

from dataclasses import dataclass

from pmexp.config.checks import check_at_least, check_between


@dataclass(kw_only=True)
class CheckpointConfig:
    """Holds the keys of `checkpoint`: how often one is written, and how many stay."""

    every_s: float | None = 300.0  # seconds between two; null: on a stop signal alone
    keep: int = 2  # newest complete ones that stay while the run goes on
    asynchronous: bool | None = None  # written beside training, from a copy; null: where the device is CUDA

    def __post_init__(self) -> None:
        check_at_least("checkpoint.keep", self.keep, 1)
        if self.every_s is not None:
            check_between("checkpoint.every_s", self.every_s, 0.0, 86400.0)
