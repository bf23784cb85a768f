"""The types between the sources of runs and the rest: what a run tells, and an experiment made of them."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pmexp.protocol import ProtocolConfig
from pmexp.run_folder.differences import SHARED_WITH
from pmexp.run_folder.journal_lines import Curve
from pmexp.run_folder.state import State
from pmexp_analysis.sources.values import SectionValues

if TYPE_CHECKING:
    import pandas as pd


FINISHED, FAILED, OUT_OF_MEMORY = State.finished.value, State.failed.value, State.oom.value
DIVERGED = "diverged"  # finished with a loss or score that is not finite
NO_RUN = "no run"  # a run of which only the partner in its pair is known
NOT_PLANNED = "not planned"  # the same, where a plan has the partner and not the run


class Labels(NamedTuple):
    """What a run was about. Two runs of one (task, system, seed) that differ in variant are a pair."""

    task: str
    system: str
    variant: str
    seed: int


@dataclass(frozen=True)
class Missing:
    """A run that should have a result and has none; `run_id` is None when no run is known at all."""

    task: str
    system: str
    variant: str
    seed: int
    run_id: str | None
    why: str
    state: str = FAILED


@dataclass  # thousands are made, twice: a frozen one takes three times as long
class Run:
    """One run as its source tells it. `finals` (metric -> last value) is None for a run without a result,
    and `why` then says what is known about the end of it. `labels` are words of its configuration alone."""

    run_id: str
    labels: Labels
    finals: Mapping[str, float] | None = None
    state: str = FINISHED  # a State, in words
    why: str = ""
    curve: Curve = field(default_factory=Curve)
    environment: Mapping[str, str | float] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)  # dotted key -> value
    tracking_uri: str | None = None  # where MLflow mirrors it
    mlflow_id: str | None = None  # id of its run there
    protocol: Mapping[str, Any] | None = None  # the one that it was started under
    folder: Path | None = None
    weights_sha256: str = ""  # digest of its final weights; empty where it recorded none
    chance: Mapping[str, float] = field(default_factory=dict)  # score -> what a constant answer reaches
    samples: Mapping[str, float] = field(default_factory=dict)  # split -> how many samples were scored
    is_planned: bool = False  # by a plan that was written before it started; MLflow has none


class Member(NamedTuple):
    """A run of an experiment: `labels` tell it from every other, `words` are those of its configuration."""

    run: Run
    labels: Labels
    state: str  # that of the run, or one of the two words that only a report has

    @property
    def words(self) -> Labels:
        return self.run.labels

    @property
    def shared_with(self) -> str:
        """The id of the run whose training it shares, measuring a few steps alone; empty where it trained."""
        told = self.run.settings.get(SHARED_WITH)
        return "" if told in (None, "None") else str(told)  # text, as MLflow keeps it


@dataclass(frozen=True)
class Experiment:
    """Everything a report is computed from. `values` are the final ones of the finished runs.

    The variant of a member's labels is what is compared, the axis of `protocol`, and the system what else the
    runs are grouped by; with axis=arm a variant is named together with its system.
    """

    name: str
    source: str
    members: list[Member]
    values: list[SectionValues]
    missing: list[Missing]
    environment: dict[str, list[str | float]]
    counted: frozenset[str]  # metrics that one run has all of, in these runs, beside those of the catalog
    protocol: ProtocolConfig
    remarks: list[str]  # on the protocol

    @property
    def finished(self) -> list[Member]:
        return [member for member in self.members if member.run.finals is not None]

    @cached_property
    def finished_seeds(self) -> dict[tuple[str, str, str], set[int]]:
        """(task, system, variant) -> the seeds of its finished runs."""
        seeds: dict[tuple[str, str, str], set[int]] = defaultdict(set)
        for task, system, variant, seed in (member.labels for member in self.finished):
            seeds[task, system, variant].add(seed)
        return dict(seeds)

    @cached_property
    def curves(self) -> "pd.DataFrame":
        """One row a (run, metric, step) of the finished runs, with the columns of long_tables.COLUMNS."""
        from pmexp_analysis.sources.long_tables import curves_table  # with pandas, for figures alone

        return curves_table(self.finished)

    @property
    def tracking_uris(self) -> frozenset[str]:
        return frozenset(m.run.tracking_uri for m in self.members if m.run.tracking_uri)
