"""Criteria of a protocol, judged as the report judges them, over runs that are made up."""

import json
from typing import Any

from pmexp.protocol import Bound as Is
from pmexp.protocol import CriterionConfig, ProtocolConfig
from pmexp_analysis.criteria import Judged, judge
from pmexp_analysis.numbers.fits import limits_of
from pmexp_analysis.sources.experiment import Experiment
from run_folders import Runs

METHOD = "packed"
LENGTH, BATCH = "dataset.max_length", "train.batch_size"


def plain(protocol: ProtocolConfig) -> dict[str, Any]:
    """Returns the protocol as plain types, as a run's summary holds it."""
    criteria = {
        name: {
            **vars(one),
            "statistic": one.statistic.name,
            "comparison": one.comparison.name,
        }
        for name, one in protocol.criteria.items()
    }
    told = {**vars(protocol), "axis": protocol.axis.name, "family": protocol.family.name}
    return {**told, "criteria": criteria}


def judged_all(runs: Runs, protocol: ProtocolConfig) -> tuple[Experiment, list[Judged]]:
    """The protocol, put into the first summary of the runs, judged as the report does."""
    for summary in runs.folder.glob("*/summary.json"):
        content = json.loads(summary.read_text())
        summary.write_text(json.dumps({**content, "protocol": plain(protocol)}))
    experiment = runs.experiment()
    assert experiment.remarks == []
    return experiment, judge(experiment, limits_of(experiment, runs.folder / "fit"))


def judged(runs: Runs, **criterion: Any) -> Judged:
    protocol = ProtocolConfig(method=METHOD, criteria={"it": CriterionConfig(**criterion)})
    (one,) = judged_all(runs, protocol)[1]
    return one


STEP = "speed/step_ms"
BASE = [100.0, 101.0, 99.0, 100.5, 99.5]
MORE = {"comparison": Is.at_least}
