"""The success criteria of a protocol, judged: result (types), a file a kind of statistic, then judge."""

from pmexp_analysis.criteria.judge import judge
from pmexp_analysis.criteria.result import Judged, Result, TaskResult, answer

__all__ = ["Judged", "Result", "TaskResult", "answer", "judge"]
