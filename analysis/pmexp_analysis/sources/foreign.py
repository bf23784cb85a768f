"""Words out of run folders and trackers, which anybody may have written: made to be nothing but words."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from pmexp.masking import credentials_in, masked
from pmexp.run_folder.journal_lines import Curve
from pmexp.shown import printable
from pmexp_analysis.sources.experiment import Run
from pmexp_analysis.sources.shared import Shared


def words(text: str) -> str:
    """`text` in one line, without credentials and letters that steer: two texts that differ still do."""
    return printable(masked(text))


def readable(runs: Iterable[Run]) -> Iterator[Run]:
    """The runs with every text in them as `words`; their addresses and folders, which are used, stay."""
    return map(_Reader().run, runs)


class _Reader:
    """Cleans each text that thousands of runs share only once, and keeps one copy of it."""

    def __init__(self) -> None:
        self._credentials = credentials_in(os.environ)
        self._shown: dict[str, str] = {}
        self._settings, self._environments, self._protocols = (Shared(self._readable) for _ in range(3))

    def run(self, run: Run) -> Run:
        at, shown = run.labels, self._words
        return replace(
            run,
            run_id=shown(run.run_id),
            labels=replace(at, task=shown(at.task), system=shown(at.system), variant=shown(at.variant)),
            finals=self._readable(run.finals),
            why=shown(run.why),
            curve=self._curve(run.curve),
            environment=self._environments.of({key: _plain(value) for key, value in run.environment.items()}),
            settings=self._settings.of(run.settings),
            protocol=run.protocol and self._protocols.of(run.protocol),
        )

    def _words(self, text: str) -> str:
        if text not in self._shown:
            self._shown[text] = printable(masked(text, self._credentials))
        return self._shown[text]

    def _curve(self, curve: Curve) -> Curve:
        shown = {name: self._words(name) for name in {*curve.metrics, *curve.units, *curve.directions}}
        if all(name == word for name, word in shown.items()):
            return curve
        columns = (curve.metrics, curve.units, curve.directions)
        metrics, units, directions = ([shown[word] for word in column] for column in columns)
        return replace(curve, metrics=metrics, units=units, directions=directions)

    def _readable(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._words(value)
        if isinstance(value, dict):
            return {self._words(key): self._readable(item) for key, item in value.items()}
        return [self._readable(item) for item in value] if isinstance(value, list) else value


def _plain(value: Any) -> str | float:
    return value if isinstance(value, int | float | str) else str(value)
