"""Puts the report into MLflow: artifacts `report/...` and tags of the experiment's parent run."""

import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from pmexp.errors import reason
from pmexp.tracking.database import OpenExperiment
from pmexp.tracking.parent import ParentRun
from pmexp_analysis.sources import foreign


def attach(
    name: str,
    tracking_uris: Collection[str],
    report: Collection[Path],
    words: Mapping[str, str] | None = None,
) -> list[str]:
    """Attaches the files to the parent run of experiment `name` at each URI; a line for each that failed.

    Files keep their folders below the one that all are in. `words`: tags of the parent and their values. A
    parent that is missing is made. A tracker that cannot be reached costs the attachment, never the report.
    """
    complaints = []
    for uri in sorted(tracking_uris):
        try:
            _attach(name, uri, report, words or {})
        except Exception as error:
            logging.getLogger(__name__).debug("attaching failed", exc_info=True)
            complaints.append(
                foreign.words(f"the report is not attached in MLflow at {uri}: {reason(error)}")
            )
    return complaints


def _attach(name: str, uri: str, report: Collection[Path], words: Mapping[str, str]) -> None:
    parent = ParentRun(OpenExperiment(uri, name))
    parent.settle()
    parent.adopt()
    parent.settle_status()
    parent.tag(words)
    root = os.path.commonpath([file.parent for file in report])
    for file in report:
        parent.attach(file, str(Path("report", file.parent.relative_to(root))))
