"""Names variants of which fewer or more parameters get a gradient than of the baseline: another training."""

from pmexp.protocol import ComparedLabel
from pmexp_analysis.numbers.conditions import seeds_said
from pmexp_analysis.sources.experiment import Experiment

_GRADIENTS = "memory/gradients_bytes"
_SAME = 0.01  # a share within which two measurements of several processes may differ


def unlike_gradients(experiment: Experiment) -> list[str]:
    """Returns a line for each variant whose gradients take other bytes than the baseline's of the same seed.

    Arms differ by their system stack, which may hold gradients of another size.
    """
    protocol = experiment.protocol
    if protocol.axis is not ComparedLabel.variant:
        return []
    lines = []
    for section in experiment.values:
        if (gradients := section.metrics.get(_GRADIENTS)) is None:
            continue
        base = gradients.finite(protocol.baseline)
        for variant in sorted(gradients.by_variant):
            own = gradients.finite(variant)
            seeds = [s for s in sorted(own.keys() & base.keys()) if abs(own[s] - base[s]) > _SAME * base[s]]
            if seeds:
                bytes_of = [f"{side[seeds[0]]:,.0f}" for side in (own, base)]
                lines.append(
                    f"{section.task}, {section.system}: gradients of {variant} take {bytes_of[0]} bytes "
                    f"where those of {protocol.baseline} take {bytes_of[1]} ({seeds_said(seeds)}): other "
                    "parameters are trained, or none is held to the step's end."
                )
    return lines
