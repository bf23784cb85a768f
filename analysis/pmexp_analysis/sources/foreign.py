"""Words out of run folders and trackers, which anybody may have written: made to be nothing but words."""

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pmexp.masking import masked
from pmexp.shown import printable

if TYPE_CHECKING:
    from pmexp_analysis.sources.experiment import Run


@lru_cache(maxsize=65536)  # thousands of runs say the same
def words(text: str) -> str:
    """`text` in one line, without credentials and letters that steer: two texts that differ still do."""
    return printable(masked(text))


def readable(run: "Run") -> "Run":
    """The run with every text in it as `words`; its address and folder, which are used, stay."""
    at = run.labels
    names = {name: words(name) for name in {*run.curve.metrics, *run.curve.units, *run.curve.directions}}
    curve = run.curve
    if any(name != shown for name, shown in names.items()):
        columns = (curve.metrics, curve.units, curve.directions)
        metrics, units, directions = ([names[word] for word in column] for column in columns)
        curve = replace(curve, metrics=metrics, units=units, directions=directions)
    return replace(
        run,
        run_id=words(run.run_id),
        labels=replace(at, task=words(at.task), system=words(at.system), variant=words(at.variant)),
        finals=_readable(run.finals),
        why=words(run.why),
        curve=curve,
        environment={words(key): _value(value) for key, value in run.environment.items()},
        settings=_readable(run.settings),
        protocol=_readable(run.protocol),
    )


def _readable(value: Any) -> Any:
    if isinstance(value, str):
        return words(value)
    if isinstance(value, dict):
        return {_readable(key): _readable(item) for key, item in value.items()}
    return [_readable(item) for item in value] if isinstance(value, list) else value


def _value(value: Any) -> str | float:
    return value if isinstance(value, int | float) else words(str(value))
