"""What a run has warned of, as its record keeps it: the run writes each under the name that it has here."""

from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True)
class Warned:
    """Holds a line for each thing that a run may warn of; an empty one where there was nothing to say."""

    data_doubts: str  # what makes scores on the data say little
    ood_data_doubts: str  # the same of the data of another distribution
    woken: str  # frozen parts of the model that training takes out of eval mode
    not_updated: str  # parameters that no optimizer has
    without_gradient: str  # those that had no gradient in any step
    zero_gradient: str  # those that had none but zeros in the first steps
    loss_scale: str  # by what a method's own loss is multiplied or divided
    unscheduled: str  # inner optimizers that do not follow the schedule
    changed_in_evaluation: str  # weights that the first evaluation has changed
    labels_left_out: str  # how much of the first step's batch a method's own loss leaves out
    masks_in_graphs: str  # compiled functions whose masks nobody has counted
    resumed_without: str  # what a checkpoint did not hold of somebody's own modules
    changed_process: str  # functions, classes and settings that somebody's code has changed
    reseeded: str  # where code has seeded torch anew
    unnamed_masks: str  # random numbers of the first step that no report names

    def record(self) -> dict[str, str]:
        """Returns the lines that say something, by their keys of summary.json's environment."""
        return {key: said for key, said in asdict(self).items() if said}


WARNED = tuple(field.name for field in fields(Warned))
