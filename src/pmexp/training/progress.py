"""Holds how far a training has come."""

from dataclasses import dataclass, field


@dataclass
class Progress:
    """Holds all of the loop's own state that a resumed run needs, beside weights, optimizer and RNG."""

    step: int = 0
    best_value: float | None = None  # None where none was a finite number
    best_step: int = 0
    evaluations_without_best: int = 0
    positions: int = 0  # places of texts that all steps have computed, padding included
    padding: int = 0  # positions that were padding
    optimizer_counted: bool = False  # whether the bytes of its state are on record
    # Parameters that train and had no gradient in any step; None before the first.
    without_gradient: list[str] | None = None
    still: list[str] | None = None  # those that had none but zeros; None before the first
    # By what a method's own loss was multiplied or divided in all batches compared; None where none was.
    loss_scale: list[str] | None = None
    # The machine, threads and versions of the last start; None in a checkpoint of an earlier version.
    conditions: dict[str, str] | None = None
    other_conditions: list[str] = field(default_factory=list)  # a line each time that they had changed
    dropout_rates: dict[str, float] | None = None  # those of all dropouts after the first step
    resting: list[str] = field(default_factory=list)  # dropout modules that were in eval mode in it
    unscheduled: str = ""  # says which inner optimizer of a method's does not follow the schedule
    changed_in_evaluation: str = ""  # says which weights the first evaluation has changed
    masks_in_graphs: str = ""  # says that functions are compiled whose masks nobody has counted
    labels_left_out: str = ""  # says how much of the first step's batch a method's own loss leaves out
    drops: bool = False  # whether the first step called dropout that drew
    reseeded: str = ""  # says what the first steps show of code that seeds torch
    rates_beside: str = ""  # says what dropped in it at other rates than variant.p
    resumed_without: str = ""  # says what of somebody's own modules a start did not have
