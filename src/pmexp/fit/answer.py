"""Answers one question: does this run fit, and what is the largest one like it that does?"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pmexp.command.compose import compose
from pmexp.command.overrides import merged
from pmexp.config import RunConfig
from pmexp.errors import UserError
from pmexp.fit.options import FitOptions
from pmexp.fit.search import Probe, batches, lengths, search

LENGTH_MULTIPLE = 64  # tokens: lengths are searched in steps of so many


@dataclass(frozen=True)
class Answer:
    asked: Probe  # tries the run as it is configured
    largest: int | None  # batch or length; None: not even the smallest fits
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


def answer(options: FitOptions) -> Answer:
    """Answers the options. Raises UserError, or an error of Hydra, for what cannot be run."""
    config = compose(options.overrides)
    batch, length = _samples_at_once(config), config.dataset.max_length
    if options.what == "length" and config.model.takes_images:
        raise UserError(f"what=length: model={config.model.name} takes images; allowed is what=batch")
    asked = batch if options.what == "batch" else length
    global_batch = options.global_batch
    if options.method == "measure" and options.what == "batch":
        global_batch = global_batch or config.train.batch_size
    processes = config.system.processes
    if global_batch and global_batch % (batch * processes):
        raise UserError(
            f"global_batch: {global_batch} is no multiple of {batch * processes}, the first batch to be tried"
        )
    share = global_batch // processes if global_batch else None
    probe = (
        _simulated(options, config, share)
        if options.method == "simulate"
        else _measured(options, global_batch, processes)
    )
    probes: dict[int, Probe] = {}

    def remembered(value: int) -> Probe:
        if value not in probes:
            probes[value] = probe(value)
        return probes[value]

    first = remembered(asked)
    values = batches(share) if options.what == "batch" else _lengths_of(options, config)
    start = values.index(asked) if asked in values else max(0, asked // LENGTH_MULTIPLE - 1)
    largest, _ = search(values, start, options.budget_bytes, remembered)
    return Answer(first, largest, list(probes.values()), config)


def _samples_at_once(config: RunConfig) -> int:
    """Returns the samples that one process runs at once."""
    return (config.train.batch_size or 1) // config.train.accumulate // config.system.processes


def _lengths_of(options: FitOptions, config: RunConfig) -> Sequence[int]:
    """The lengths to search: a measured model ends at its positions, a simulated one gets what it needs."""
    if options.method == "simulate":
        return lengths(LENGTH_MULTIPLE)
    asked = config.dataset.max_length
    positions = max(asked, int(config.model.architecture.get("max_position_embeddings", asked)))
    return lengths(LENGTH_MULTIPLE, positions)


def _simulated(options: FitOptions, config: RunConfig, share: int | None) -> Callable[[int], Probe]:
    from pmexp.fit.simulate import probe_of, simulate

    batch, length = _samples_at_once(config), config.dataset.max_length

    def probe(value: int) -> Probe:
        samples, tokens = (value, length) if options.what == "batch" else (batch, value)
        accumulate = share // samples if share else config.train.accumulate
        prediction = simulate(config, samples, tokens, accumulate)
        return probe_of(value, prediction, options.budget_bytes)

    return probe


def _measured(options: FitOptions, global_batch: int | None, processes: int) -> Callable[[int], Probe]:
    from pmexp.fit.measure import measure

    def probe(value: int) -> Probe:
        if global_batch:
            parts = global_batch // processes // value
            keys = [f"train.batch_size={global_batch}", f"train.accumulate={parts}"]
        else:
            keys = [f"dataset.max_length={value}"]
        return measure(merged(options.overrides, keys), value, options.budget_bytes)

    return probe
