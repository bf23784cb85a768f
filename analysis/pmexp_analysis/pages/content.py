"""Everything a report says, computed from an experiment before any file is written."""

import json
import math
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from pmexp_analysis.criteria import Judged, Result, answer, judge
from pmexp_analysis.criteria.absent import absent_sides
from pmexp_analysis.criteria.lost import lost_sentences
from pmexp_analysis.criteria.wrong_ends import wrong_ends
from pmexp_analysis.numbers import compare
from pmexp_analysis.numbers.compared_settings import compared_settings
from pmexp_analysis.numbers.evidence import evidence_of
from pmexp_analysis.numbers.fits import Limits, limits_of
from pmexp_analysis.numbers.hparams import Grid, grids
from pmexp_analysis.numbers.own_scores import falling_scores
from pmexp_analysis.numbers.sections import Section, sections
from pmexp_analysis.numbers.selecting_split import scores_that_selected
from pmexp_analysis.numbers.trained_parts import unlike_gradients
from pmexp_analysis.numbers.warned import warned_of
from pmexp_analysis.pages import changes
from pmexp_analysis.sources.experiment import Experiment


@dataclass(frozen=True)
class Content:
    """`result` and `sentence` are the verdict. `changes` is None where no earlier report is compared."""

    experiment: Experiment
    generated: str  # ISO time in UTC
    rows: list[compare.Row]
    comparisons: list[compare.Comparison]
    sections: list[Section]
    criteria: list[Judged]
    result: Result
    sentence: str
    limits: list[Limits]
    grids: list[Grid]
    changes: list[str] | None
    warnings: list[str]  # what a reader has to know before all else
    compared: list[str]  # in which settings each variant differs from the baseline

    @property
    def variants(self) -> list[str]:
        """The baseline and all that is compared with it."""
        names = {variant for section in self.sections for variant in section.variants}
        return sorted(names, key=lambda v: (v != self.experiment.protocol.baseline, v))


def content_of(
    experiment: Experiment, generated: str, fits: Path | None, earlier: changes.Report | None
) -> Content:
    """`fits`: the folder of answers of pmexp.fit; `earlier`: a report to compare with. Raises UserError."""
    protocol = experiment.protocol
    rows = compare.rows(experiment.values)
    evidence = evidence_of(experiment)
    comparisons = compare.comparisons(experiment.values, protocol, experiment.counted, evidence)
    limits = limits_of(experiment, fits)
    judged = judge(experiment, limits, evidence)
    absent = absent_sides(experiment)
    result, sentence = answer(judged, protocol.method, absent)
    content = Content(
        experiment=experiment,
        generated=generated,
        rows=rows,
        comparisons=comparisons,
        sections=sections(rows, comparisons, protocol.baseline, evidence),
        warnings=[
            *absent,
            *lost_sentences(experiment),
            *wrong_ends(experiment),
            *falling_scores(experiment),
            *scores_that_selected(experiment),
            *unlike_gradients(experiment),
            *warned_of(experiment),
            *evidence.warnings(),
        ],
        compared=compared_settings(experiment),
        criteria=judged,
        result=result,
        sentence=sentence,
        limits=limits,
        grids=grids(experiment),
        changes=None,
    )
    if earlier is None:
        return content
    return replace(content, changes=changes.changes(earlier, as_dict(content)))


def as_dict(content: Content) -> dict[str, Any]:
    """The report as plain types without NaN and infinity: what report.json holds."""
    plain: dict[str, Any] = _strict({key: _plain(value) for key, value in _entries(content).items()})
    return plain


def _entries(content: Content) -> dict[str, Any]:
    """What report.json holds, with records as they are."""
    experiment = content.experiment
    protocol = experiment.protocol
    return {
        "name": experiment.name,
        "warnings": content.warnings,
        "generated": content.generated,
        "source": experiment.source,
        "question": protocol.question,
        "verdict": {"result": content.result, "sentence": content.sentence},
        "criteria": content.criteria,
        "protocol": {
            "axis": protocol.axis.name,
            "baseline": protocol.baseline,
            "method": protocol.method,
            "family": protocol.family.name,
            "remarks": experiment.remarks,
            "compared": content.compared,
        },
        "rows": content.rows,
        "comparisons": content.comparisons,
        "one_training": [line for section in content.sections for line in section.remarks],
        "grids": content.grids,
        "limits": content.limits,
        "missing": experiment.missing,
        "environment": experiment.environment,
        **({} if content.changes is None else {"changes": content.changes}),
    }


def as_json(content: Content) -> str:
    """report.json: an entry a line, which a person can read."""
    parts = []
    for key, value in _entries(content).items():
        several = isinstance(value, list) and value
        said = "[\n  " + ",\n  ".join(map(_json, value)) + "\n ]" if several else _json(value)
        parts.append(f" {_json(key)}: {said}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _json(value: Any) -> str:
    """A record or plain types as JSON, null for NaN and infinity."""
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # a number of more than 64 bits, which the standard library writes
        return json.dumps(_strict(_plain(value)), allow_nan=False, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Records, alone or in a list, as dictionaries."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    return [_strict(item) for item in value] if isinstance(value, list | tuple) else value
