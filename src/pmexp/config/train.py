"""`train.*`: steps, batches, optimiser and schedule."""

from dataclasses import dataclass
from enum import Enum

from pmexp.config.checks import check_at_least, check_between, check_name, check_positive
from pmexp.errors import UserError

MEASURED_STEPS = 50  # a run that shares its training takes so many: enough for the median time of a step


class Schedule(Enum):
    """Names the ways of the learning rate from its peak to the last step."""

    linear = "linear"
    cosine = "cosine"
    constant = "constant"


class Select(Enum):
    """Says whose weights are tested: those of the best evaluation, or of the last step."""

    best = "best"
    last = "last"


@dataclass(kw_only=True)
class TrainConfig:
    """Holds the keys of `train`."""

    epochs: int | None = None  # null: the dataset's
    max_steps: int | None = None  # ends training early
    batch_size: int | None = None  # samples a step; null: the dataset's
    accumulate: int = 1  # parts in which a step's batch is run, their gradients summed
    lr: float | None = None  # peak learning rate; null: the model's
    weight_decay: float = 0.01  # shrinks all that trains, biases and norms too, as AdamW does
    warmup_fraction: float = 0.1  # share of the steps with rising learning rate
    schedule: Schedule = Schedule.linear
    clip_norm: float | None = 1.0  # gradient norm above which it is scaled down; null: it never is
    select: Select = Select.best  # weights to test: of the best validation metric, or the last
    patience: int | None = 3  # evaluations without a new best before stopping; only with select=best
    evaluate_every: float | None = None  # steps, or a share of an epoch below 1; null: once an epoch
    evaluate: bool = True  # false: neither validates nor tests; with select=last
    log_every: int = 10  # steps between journal records of loss and gradient norm
    threads: int | None = None  # CPU threads; null: torch's choice, at most a container's cores
    workers: int | None = None  # processes that make batches ahead, 0: none; null: as many as pay
    shared_with: str | None = None  # the run whose training it is; then measured steps alone, and no score

    def __post_init__(self) -> None:
        for key in ("epochs", "max_steps", "batch_size", "patience", "threads"):
            if getattr(self, key) is not None:
                check_at_least(f"train.{key}", getattr(self, key), 1)
        if self.workers is not None:
            check_at_least("train.workers", self.workers, 0)
        if self.lr is not None:
            check_positive("train.lr", self.lr)
        if self.shared_with is not None:
            check_name("train.shared_with", self.shared_with)
        if not self.evaluate and self.select is Select.best:
            raise UserError(
                "train.evaluate: false leaves nothing to select weights by; set train.select=last"
            )
        every = self.evaluate_every
        if every is not None and not (0 < every < 1 or (every >= 1 and every % 1 == 0)):
            raise UserError(
                f"train.evaluate_every: {every:g} is neither a whole number of steps nor a share of an epoch "
                "between 0 and 1; null evaluates once an epoch"
            )
        check_at_least("train.log_every", self.log_every, 1)
        check_at_least("train.accumulate", self.accumulate, 1)
        if self.clip_norm is not None:
            check_positive("train.clip_norm", self.clip_norm)
        check_between("train.weight_decay", self.weight_decay, 0.0, 1.0)
        check_between("train.warmup_fraction", self.warmup_fraction, 0.0, 1.0)

    def last_step(self, planned: int) -> int:
        """The step at which a run ends whose training has `planned` steps."""
        return min(planned, MEASURED_STEPS) if self.shared_with else planned

    @property
    def has_scores(self) -> bool:
        """Whether a run evaluates its model."""
        return self.evaluate and not self.shared_with

    @property
    def without_effect(self) -> set[str]:
        """Keys that change nothing under the others' values."""
        patience = {"patience"} if self.select is Select.last else set()
        return patience if self.evaluate else {*patience, "evaluate_every"}
