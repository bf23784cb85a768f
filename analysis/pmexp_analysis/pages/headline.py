"""The sentence that says what a section found, computed from its numbers."""

from pmexp_analysis.numbers.cells import number, probability, word
from pmexp_analysis.numbers.compare import Comparison
from pmexp_analysis.numbers.compared_cells import change, mean_std
from pmexp_analysis.numbers.scores import is_exact, label_of
from pmexp_analysis.numbers.sections import Section
from pmexp_analysis.numbers.trainings import is_result

_MASK = "memory/mask_bytes_per_element"


def headlines(section: Section) -> list[str]:
    """One sentence a variant against the baseline; one that says so where there is nothing to compare."""
    others = [variant for variant in section.variants if variant != section.baseline]
    if section.baseline not in section.variants:
        return [f"There is no finished run of the baseline '{section.baseline}', so nothing is compared."]
    if not others:
        return [f"Only '{section.baseline}' has finished, so nothing is compared."]
    return [_sentence(section, variant) for variant in others]


def _sentence(section: Section, variant: str) -> str:
    memory = [_mask(section, variant), _memory(section, variant)]
    parts = [", ".join(filter(None, memory)), *_scores(section, variant), _speed(section, variant)]
    return f"{variant} " + ("; ".join(filter(None, parts)) or "shares no metric with the baseline") + "."


def _mask(section: Section, variant: str) -> str:
    one = section.comparisons.get((variant, _MASK))
    mine, base = section.rows.get((variant, _MASK)), section.rows.get((section.baseline, _MASK))
    if one is None or mine is None or base is None or mine.mean is None or base.mean is None:
        return ""
    text = f"stores {number(mine.mean)} bytes of dropout mask per element versus {number(base.mean)}"
    if one.relative_difference and one.relative_difference > -1:
        ratio = 1 / (1 + one.relative_difference)
        text += f" ({ratio:.1f}x smaller)" if ratio > 1 else f" ({1 / ratio:.1f}x larger)"
    return text


def _memory(section: Section, variant: str) -> str:
    one = section.comparisons.get((variant, section.memory))
    if one is None or one.mean_difference is None:
        return ""
    what = {
        "memory/saved_bytes": "the memory saved for the backward pass",
        "memory/peak_tensor_bytes": "the peak tensor memory of a step",
        "memory/peak_bytes": "the peak memory of the whole process",
    }
    if one.mean_difference == 0:
        return f"leaves {what[section.memory]} unchanged"
    fewer = (one.relative_difference or one.mean_difference) < 0
    said = f"{'cuts' if fewer else 'raises'} {what[section.memory]} by {change(one).lstrip('+-')}"
    if is_exact(section.memory):
        return said
    if one.verdict == "inconclusive":
        said = f"changes {what[section.memory]} by {change(one)}"
    return f"{said} ({_evidence(one)})"


def _scores(section: Section, variant: str) -> list[str]:
    texts = []
    for metric in section.scores:
        one = section.comparisons.get((variant, metric))
        mine, base = section.rows.get((variant, metric)), section.rows.get((section.baseline, metric))
        if one is not None and one.n:
            name = label_of(metric)
            texts.append(f"{name} {mean_std(mine)} versus {mean_std(base)} ({_evidence(one)})")
    return texts


def _evidence(one: Comparison) -> str:
    if one.verdict == "identical":
        return f"training identical bit for bit, n={one.n}"
    if one.verdict == "equal":
        return f"equal {'score ' * is_result(one.metric)}in every pair, n={one.n}"
    if one.one_training_with:
        return f"same training as {one.one_training_with}, n={one.n}"
    if one.holm_p is None:
        return f"{one.note or word(one.verdict)}, n={one.n}"
    shown = probability(one.holm_p)
    return f"Holm p{shown if shown.startswith('<') else f'={shown}'}, {word(one.verdict)}, n={one.n}"


def _speed(section: Section, variant: str) -> str:
    one = section.comparisons.get((variant, section.throughput))
    if one is None or one.mean_difference is None:
        return ""
    return f"{label_of(section.throughput)} {change(one)} ({_evidence(one)})"
