"""Words out of run folders and trackers, which anybody may have written: made to be nothing but words."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pmexp.masking import credentials_in, masked
from pmexp.run_folder.journal_lines import Curve
from pmexp.shown import printable
from pmexp_analysis.sources.experiment import Labels, Run
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
        self._shown_together: dict[
            tuple[str, ...], tuple[str, ...]
        ] = {}  # names that stand together are looked up once
        self._settings, self._environments, self._protocols = (Shared(self._readable) for _ in range(3))

    def run(self, run: Run) -> Run:
        environment = {key: _plain(value) for key, value in run.environment.items()}
        told = {  # quicker than dataclasses.replace
            **vars(run),
            "run_id": self._words(run.run_id),
            "labels": self._labels(run.labels),
            "finals": run.finals and self._finals(run.finals),
            "why": self._words(run.why),
            "curve": self._curve(run.curve),
            "environment": self._environments.of(environment),
            "settings": self._settings.of(run.settings),
            "protocol": run.protocol and self._protocols.of(run.protocol),
        }
        return Run(**told)

    def _words(self, text: str) -> str:
        if (shown := self._shown.get(text)) is None:
            shown = self._shown[text] = printable(masked(text, self._credentials))
        return shown

    def _each(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        if (shown := self._shown_together.get(texts)) is None:
            shown = self._shown_together[texts] = tuple(map(self._words, texts))
        return shown

    def _labels(self, told: Labels) -> Labels:
        words = told.task, told.system, told.variant
        task, system, variant = shown = self._each(words)
        return told if shown == words else Labels(task, system, variant, told.seed)

    def _finals(self, finals: Mapping[str, float]) -> Mapping[str, float]:
        names = tuple(finals)
        shown = self._each(names)
        return finals if shown == names else dict(zip(shown, finals.values(), strict=True))

    def _curve(self, curve: Curve) -> Curve:
        names = tuple({*curve.metrics, *curve.units, *curve.directions})
        words = self._each(names)
        if words == names:
            return curve
        shown = dict(zip(names, words, strict=True))
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
