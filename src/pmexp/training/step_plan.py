"""Plans the steps of a training: how many it takes, each one's learning rate, and when it evaluates."""

import math
from fractions import Fraction

from pmexp.config import Schedule, TrainConfig
from pmexp.errors import UserError
from pmexp.shown import counted


class StepPlan:
    """Holds what a configuration and a number of samples alone make of the steps."""

    def __init__(self, config: TrainConfig, samples: int) -> None:
        """samples: those that are trained on. Raises UserError where they fill no batch."""
        assert config.batch_size is not None
        assert config.epochs is not None
        self._config = config
        self.steps_per_epoch = samples // config.batch_size
        if not self.steps_per_epoch:
            raise UserError(
                f"train.batch_size: {config.batch_size} exceeds the {counted(samples, 'training sample')}; "
                "choose a smaller one"
            )
        planned = config.epochs * self.steps_per_epoch
        self.total_steps = min(config.max_steps or planned, planned)  # those of the schedule
        self.last_step = config.last_step(self.total_steps)  # where this run ends

    def evaluations_by(self, step: int) -> int:
        """Returns how many evaluations are due by the end of `step`: one where a multiple of the interval is
        reached or passed, and one after the last step."""
        if not self._config.has_scores:
            return 0
        every = self._config.evaluate_every
        # A fraction is exact: no rounding moves a step.
        interval = Fraction(1 if every is None else str(every))
        if every is None or every < 1:
            interval *= self.steps_per_epoch
        is_last = step == self.total_steps
        return step // interval + (is_last and step // interval == (step - 1) // interval)

    def lr_factor(self, step: int) -> float:
        """Returns what the peak learning rate is multiplied by after `step` steps: a linear warm-up to 1,
        then the schedule, which reaches 0 at the last step unless it is constant."""
        warmup = math.ceil(self._config.warmup_fraction * self.total_steps)
        if step < warmup:
            return (step + 1) / warmup
        left = (self.total_steps - step) / max(1, self.total_steps - warmup)
        match self._config.schedule:
            case Schedule.linear:
                return left
            case Schedule.cosine:
                return 0.5 * (1 - math.cos(math.pi * left))
            case Schedule.constant:
                return 1.0
