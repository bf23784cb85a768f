"""Runs level=step: times whole training steps of two variants, alternating in one process.

Both runs are composed and prepared as `python -m pmexp.train` does it, with one seed and so with the same
batches, and each takes real steps of its own: forward, backward, clipping, AdamW. Which of the two goes
first changes with every pair, and the ratio is taken pair by pair. What the packing ops take of a step is
measured in further steps, so that their timers do not slow down what is compared.
"""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from pmexp.bench.options import StepOptions
from pmexp.bench.packing_time import PackingTime
from pmexp.bench.pairs import alternate, paired_ratio
from pmexp.bench.results import write_csv
from pmexp.command_line.output import write
from pmexp.errors import UserError
from pmexp.measure.environment import environment
from pmexp.measure.timing import WARMUP_STEPS
from pmexp.training.loop import Training
from pmexp.training.prepared import prepare

_SHARE_STEPS = 10


@dataclass(frozen=True)
class PairOfVariants:
    """What two variants take: the line of step.csv. Shares are those of a step of `variant`."""

    variant: str
    against: str
    pairs: int
    ratio: float  # the throughput over the other's
    low: float
    high: float
    samples_per_s: float
    step_ms: float
    against_samples_per_s: float
    against_step_ms: float
    packing_share: float
    unpacking_share: float


def run(options: StepOptions, command: str) -> None:
    """Measures, prints and, with `out`, writes step.csv, and step.json with the time of each step.

    Raises UserError for a configuration that cannot be run, or not for long enough.
    """
    sides = [prepare(config) for config in options.configs]
    if said := next(filter(None, (side.changes.said() for side in sides)), ""):
        raise UserError(f"{options.variant}, {options.against}: {said} for both, so that no ratio is theirs")
    variant, against = (side.training for side in sides)
    _require_steps(variant, options.steps)
    steps, against_steps = steps_of(variant), steps_of(against)
    alternate(steps, against_steps, WARMUP_STEPS)
    seconds, against_seconds = alternate(steps, against_steps, options.steps)
    packing, unpacking = _shares(steps, statistics.median(seconds))
    row = PairOfVariants(
        options.variant,
        options.against,
        options.steps,
        **asdict(paired_ratio(against_seconds, seconds)),
        **_speed("", variant, seconds),
        **_speed("against_", against, against_seconds),
        packing_share=packing,
        unpacking_share=unpacking,
    )
    print(_summary(row))
    if options.out is not None:
        record = asdict(row) | {
            "warmup_pairs": WARMUP_STEPS,
            "command": command,
            "settings": options.configs[0].settings,
            "against_settings": options.configs[1].settings,
            "environment": environment(variant.system.device),
            "seconds": seconds,
            "against_seconds": against_seconds,
        }
        table, whole = options.out / "step.csv", options.out / "step.json"
        write_csv(table, [row])
        write(whole, json.dumps(record, indent=2) + "\n")
        print(table, whole, sep="\n")


def _require_steps(training: Training, pairs: int) -> None:
    others = WARMUP_STEPS + _SHARE_STEPS
    if training.plan.total_steps < pairs + others:
        raise UserError(
            f"steps: {pairs} pairs and {others} steps for warm-up and shares exceed the "
            f"{training.plan.total_steps} of this training; choose fewer, or set train.epochs or "
            "train.max_steps"
        )


def steps_of(training: Training) -> Callable[[], float]:
    """Returns a function that takes the next step and returns its seconds; validation is not among them."""
    steps = training.steps()

    def step() -> float:
        if next(steps, None) is None:
            raise UserError(f"steps: early stopping ended the training at step {training.progress.step}")
        return training.timer.seconds[-1]

    return step


def _shares(step: Callable[[], float], step_seconds: float) -> tuple[float, float]:
    """Returns the shares of a step that packing (forward) and unpacking (backward) take: medians over further
    steps."""
    spent = []
    for _ in range(_SHARE_STEPS):
        with PackingTime() as times:
            step()
        spent.append(times)
    forward = statistics.median(times.forward for times in spent)
    return forward / step_seconds, statistics.median(times.backward for times in spent) / step_seconds


def _speed(prefix: str, training: Training, seconds: Sequence[float]) -> dict[str, float]:
    median = statistics.median(seconds)
    return {f"{prefix}samples_per_s": training.batch_size / median, f"{prefix}step_ms": 1e3 * median}


def _summary(row: PairOfVariants) -> str:
    width = max(len(row.variant), len(row.against))
    return "\n".join(
        [
            f"{row.variant} has {row.ratio:.3f} times the throughput of {row.against} "
            f"[{row.low:.3f}, {row.high:.3f}] over {row.pairs} pairs of steps",
            f"{row.variant:<{width}}  {row.samples_per_s:8.1f} samples/s  {row.step_ms:9.2f} ms a step",
            f"{row.against:<{width}}  {row.against_samples_per_s:8.1f} samples/s  "
            f"{row.against_step_ms:9.2f} ms a step",
            f"packing takes {row.packing_share:.1%} of a step of {row.variant}, "
            f"unpacking {row.unpacking_share:.1%}",
        ]
    )
