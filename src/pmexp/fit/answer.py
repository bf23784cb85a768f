"""Answers one question: does this run fit, and what is the largest one like it that does?"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pmexp.command.compose import compose
from pmexp.config import RunConfig
from pmexp.errors import UserError
from pmexp.fit.options import FitOptions
from pmexp.fit.search import Probe, batches, lengths, search
from pmexp.systems.ranks import started_processes

LENGTH_MULTIPLE = 64  # tokens: lengths are searched in steps of so many


@dataclass(frozen=True)
class Answer:
    """Holds whether a run fits into memory, and what the search for the largest has tried."""

    asked: Probe  # tries the run as it is configured
    largest: int | None  # batch or length; None: not even the smallest fits, or nothing was searched
    probes: list[Probe]
    config: RunConfig

    def record(self, options: FitOptions) -> dict[str, Any]:
        """What out=FILE.json holds, without command and environment."""
        return {
            "method": options.method,
            "what": options.what,
            "budget_bytes": options.budget_bytes,
            "peak_bytes": self.asked.peak_bytes,
            "by_category": self.asked.by_category,
            "fits": self.asked.fits,
            "largest": self.largest,
            "asked": self.asked.value,
            "note": self.asked.note,
            "global_batch": options.global_batch,
            "labels": self.config.labels,
            "settings": self.config.settings,
            "probes": [asdict(probe) for probe in self.probes],
        }


def answer(options: FitOptions, search_largest: bool = True) -> Answer:
    """Answers the options; without `search_largest` whether the run fits, alone.

    Raises UserError, or an error of Hydra, for what cannot be run.
    """
    config = compose(options.overrides)
    batch, length = _samples_at_once(config), config.dataset.max_length
    if options.what == "length" and config.takes_images:
        raise UserError(f"what=length: model={config.model.name} takes images; allowed is what=batch")
    if options.method == "measure" and (started := started_processes()) is not None:
        raise UserError(
            f"method=measure: starts its processes itself, and a launcher has started {started}; "
            "type it once, without torchrun or srun"
        )
    asked = batch if options.what == "batch" else length
    global_batch = options.global_batch
    processes = config.system.processes
    if global_batch and global_batch % (batch * processes):
        raise UserError(
            f"global_batch: {global_batch} is no multiple of {batch * processes}, the first batch to be tried"
        )
    share = global_batch // processes if global_batch else None
    probe = (_simulated if options.method == "simulate" else _measured)(options, config, share)
    probes: dict[int, Probe] = {}

    def remembered(value: int) -> Probe:
        if value not in probes:
            probes[value] = probe(value)
        return probes[value]

    first = remembered(asked)
    if not search_largest:
        return Answer(first, None, [first], config)
    values = batches(share) if options.what == "batch" else lengths(LENGTH_MULTIPLE)
    start = values.index(asked) if asked in values else max(0, asked // LENGTH_MULTIPLE - 1)
    largest = search(values, start, options.budget_bytes, remembered)
    return Answer(first, largest, list(probes.values()), config)


def _samples_at_once(config: RunConfig) -> int:
    """Returns the samples that one process runs at once."""
    return (config.train.batch_size or 1) // config.train.accumulate // config.system.processes


def _simulated(options: FitOptions, config: RunConfig, share: int | None) -> Callable[[int], Probe]:
    from pmexp.fit.simulate import probe_of, simulate

    def probe(value: int) -> Probe:
        prediction = simulate(config, *_sizes(options, config, share, value))
        return probe_of(value, prediction, options.budget_bytes)

    return probe


def _measured(options: FitOptions, config: RunConfig, share: int | None) -> Callable[[int], Probe]:
    from pmexp.fit.measure import Try
    from pmexp.fit.processes import measured

    def probe(value: int) -> Probe:
        return measured(Try(value, config, *_sizes(options, config, share, value), options.budget_bytes))

    return probe


def _sizes(options: FitOptions, config: RunConfig, share: int | None, value: int) -> tuple[int, int, int]:
    """(samples at once, tokens, parts of a step) of a process. `share`: its samples of a step, None: free."""
    batch, length, parts = _samples_at_once(config), config.dataset.max_length, config.train.accumulate
    if options.what == "length":
        return batch, value, parts
    return value, length, share // value if share else parts
