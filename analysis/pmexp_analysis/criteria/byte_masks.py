"""What is left of a difference in memory if the baseline's masks took one byte an element, as CUDA's do.

On the CPU `nn.Dropout` keeps a mask of floats, so that a saving measured there is larger than on CUDA.
"""

from collections.abc import Sequence
from dataclasses import replace

from pmexp.protocol import CriterionConfig
from pmexp_analysis.criteria.estimates import Estimate, Sides, estimates
from pmexp_analysis.numbers import scales
from pmexp_analysis.sources.values import BySeed, SectionValues

_EXACT = "memory/saved_bytes"
_WITH_MASKS = (_EXACT, "memory/peak_tensor_bytes", "memory/mean_tensor_bytes")
_BYTES, _ELEMENTS = "memory/mask_bytes", "memory/mask_elements"


def is_bound(metric: str | None) -> bool:
    """Whether the value bounds the saving: how many masks are alive at a peak is not recorded, only how many
    there are, and the baseline's peak falls by no more than what all of them lose."""
    return metric != _EXACT


def values_with_byte_masks(
    criterion: CriterionConfig, every: Sequence[Sides], sections: Sequence[SectionValues], baseline: str
) -> list[float | None]:
    """The criterion's statistic of each of the sides, which are of one section each, against a baseline with
    masks of bytes; None where it is not about such memory, or masks were not counted."""
    smaller = [
        None if criterion.against is not None else _with_bytes(sides, section, baseline)
        for sides, section in zip(every, sections, strict=True)
    ]
    known = iter(estimates(criterion, [sides for sides in smaller if sides is not None]))
    return [None if sides is None else _value(criterion, next(known)) for sides in smaller]


def _value(criterion: CriterionConfig, estimate: Estimate | str) -> float | None:
    return None if isinstance(estimate, str) else scales.said(criterion.statistic, estimate.mean)


def _with_bytes(sides: Sides, section: SectionValues, variant: str) -> Sides | None:
    """The sides, the baseline's bytes being less what its masks take beyond one an element."""
    if sides.metric not in _WITH_MASKS or not {_BYTES, _ELEMENTS} <= section.metrics.keys():
        return None
    kept, elements = (section.metrics[name].finite(variant) for name in (_BYTES, _ELEMENTS))
    if not sides.baseline.keys() <= kept.keys() & elements.keys():
        return None
    left: BySeed = {s: value - max(0.0, kept[s] - elements[s]) for s, value in sides.baseline.items()}
    return replace(sides, baseline=left)
