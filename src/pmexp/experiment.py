"""One run from its configuration to its summary: build, replace dropout, train, evaluate, measure, record."""

import logging
import signal
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np
import torch

from pmexp import checkpoint, datasets, models, robustness, variants
from pmexp.config import RunConfig, Select
from pmexp.datasets.base import Dataset, Split
from pmexp.datasets.glue import FILE_NAMES, write_glue_predictions
from pmexp.errors import Interrupted, RankOutOfMemory, first_line
from pmexp.journal import Journal, NoJournal, last_values
from pmexp.loop import Metrics, Training
from pmexp.measure.environment import environment
from pmexp.measure.instruments import Instruments
from pmexp.measure.out_of_memory import is_out_of_memory
from pmexp.measure.peak_memory import PeakMemory
from pmexp.models.base import TaskModel
from pmexp.models.examples import IGNORED
from pmexp.packed_dropout import ReplacementReport
from pmexp.run_folder import RunFolder
from pmexp.systems import System
from pmexp.systems.launch import is_launcher, launch
from pmexp.systems.ranks import Ranks, join
from pmexp.tracking import Mirror, NoMirror, open_mirror

log = logging.getLogger(__name__)

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to start: everything built, nothing written."""

    training: Training
    model: TaskModel
    dataset: Dataset
    ood: Dataset | None  # see config.RobustnessConfig
    replacement: ReplacementReport


def check(runs: Sequence[RunConfig]) -> None:
    """Raises UserError where a device, checkpoint or dataset of `runs` cannot be had; fetches what can be."""
    for config in {repr(run.system): run.system for run in runs}.values():
        System(config)
    for model in {repr(run.model): run.model for run in runs}.values():
        models.check(model)
    for run in {repr((run.dataset, run.robustness)): run for run in runs}.values():
        robustness.load_ood(run, datasets.load(run.dataset))


def run(config: RunConfig, capture_output: bool = False) -> None:
    """Executes one run unless it is finished already. `capture_output` sends all output to the run's log.

    Raises UserError before anything is written, and Interrupted after a stop signal.
    """
    folder = RunFolder(config)
    if folder.is_finished():
        log.info("%s is finished: %s", config.run_id, folder.path / "summary.json")
        return
    if is_launcher(config):
        System(config.system)  # what this machine cannot execute is said before any process starts
        try:
            launch(config, capture_output)
        except RankOutOfMemory as error:
            with folder.opened(capture_output):
                _record_out_of_memory(folder, open_mirror(config, folder), str(error))
        return
    with _stop_requests() as stop:
        try:
            prepared = prepare(config)
            prepared.training.instruments = _instruments(config, prepared.training, folder)
        except Exception as error:
            if not is_out_of_memory(error) or config.system.processes > 1:
                raise
            with folder.opened(capture_output):
                _record_out_of_memory(folder, open_mirror(config, folder), _said(error))
            return
        ranks = prepared.training.ranks
        with folder.opened(capture_output) if ranks.is_first else nullcontext():
            ranks.wait()
            with nullcontext() if ranks.is_first else folder.joined(ranks.rank):
                log.info("%s", prepared.replacement)
                _recorded(config, folder, prepared, stop)


def prepare(config: RunConfig) -> Prepared:
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    torch.manual_seed(config.seed)
    system = System(config.system)
    ranks = join(config.system, system.device)
    dataset = datasets.load(config.dataset)
    ood = robustness.load_ood(config, dataset)
    model = models.build(config, dataset)
    system.before_variant(model.module)
    replacement = variants.apply(model.module, config.variant)
    system.prepare(model.module)
    length, metrics = config.dataset.max_length, config.dataset.metrics
    train, val = (model.examples(split, length) for split in (dataset.train, dataset.val))
    training = Training(model.module, train, val, config.train, metrics, config.seed, system, ranks)
    torch.manual_seed(
        ranks.seed(config.seed)
    )  # dropout starts from one state, whatever building the model drew
    return Prepared(training, model, dataset, ood, replacement)


def _instruments(config: RunConfig, training: Training, folder: RunFolder) -> Instruments:
    system = training.system
    precision = system.precision.split()[0]  # without "autocast"
    artifacts = folder.artifacts if training.ranks.is_first else None
    return Instruments(config.measure, training.module, system.device, precision, artifacts)


def _recorded(config: RunConfig, folder: RunFolder, prepared: Prepared, stop: list[str]) -> None:
    """Trains and tests with every outcome on record: the summary, or the failure and its reason.

    Every rank goes through it; only rank 0 has a journal and a mirror and writes the summary.
    """
    training = prepared.training
    first = training.ranks.is_first
    resumed = checkpoint.load_resume(folder)
    if resumed:
        training.restore(resumed[0])
        log.info("resumed at step %d of %d", training.progress.step, training.total_steps)
    keep_bytes = resumed[1] if resumed else 0
    with Journal(folder.journal, keep_bytes) if first else nullcontext(NoJournal()) as journal:
        mirror = open_mirror(config, folder) if first else NoMirror()
        try:
            if not resumed:
                journal.write(0, {"progress/steps_total": training.total_steps})
            peak = PeakMemory(training.system.device)
            _train(training, folder, journal, stop)
            journal.write(
                training.progress.step, {"memory/peak_bytes": peak.bytes()} | _test(prepared, config, folder)
            )
            if not first:
                return
            final = _final(config, folder, training)
            record = _environment(config, prepared) | {"peak_memory_source": peak.source}
            folder.finish(final, record, prepared.replacement.to_dict(), mirror.reference)
        except Exception as error:
            if not is_out_of_memory(error):
                _record_failure(folder, mirror, error, training.ranks)
                raise
            journal.write(training.progress.step, {"memory/peak_bytes": peak.bytes()})
            record = _environment(config, prepared) | {"peak_memory_source": peak.source}
            _record_out_of_memory(folder, mirror, _said(error), prepared, record)
            if training.ranks.world_size > 1:
                raise  # the other ranks have to end too
            return
        except BaseException as error:
            _record_failure(folder, mirror, error, training.ranks)
            raise
        mirror.finish("FINISHED")


def _train(
    training: Training,
    folder: RunFolder,
    journal: Journal | NoJournal,
    stop: list[str],
) -> None:
    keeps_best = training.config.select is Select.best
    for step, metrics in training.steps():
        journal.write(step, metrics)
        if "val/loss" in metrics:
            log.info("step %d/%d %s", step, training.total_steps, _short(metrics))
            if keeps_best and training.found_best:
                checkpoint.save_best(folder, training.engine)
        if training.ranks.any(bool(stop)) and step < training.total_steps:
            state = training.state()
            if training.ranks.is_first:
                checkpoint.save_resume(folder, state, journal.sync())
            training.ranks.wait()
            signalled = stop[0] if stop else "a stop signal"
            raise Interrupted(
                f"{signalled} at step {step} of {training.total_steps}; run the same command to go on"
            )


def _test(prepared: Prepared, config: RunConfig, folder: RunFolder) -> Metrics:
    """Speed of the steps taken, and the test split under the selected weights."""
    training = prepared.training
    measured = training.timer.metrics(training.batch_size, prepared.model.tokens_per_sample)
    assert training.instruments
    measured |= training.instruments.finish(measured.get("speed/step_ms"))
    if config.train.select is Select.best:
        checkpoint.load_best(folder, training.engine)
    dataset, length = prepared.dataset, config.dataset.max_length
    if dataset.test is not None:
        tested = training.evaluate(prepared.model.examples(dataset.test, length))
        measured |= {f"test/{name}": value for name, value in tested.items()}
    if dataset.unlabelled_test is not None and config.dataset.hub_config in FILE_NAMES:
        _predict_for_glue(prepared, dataset.unlabelled_test, config, folder)
    return measured | robustness.measure(config, training, prepared.model, dataset, prepared.ood)


def _predict_for_glue(prepared: Prepared, split: Split, config: RunConfig, folder: RunFolder) -> None:
    """Writes what the selected weights say of a test split whose labels GLUE's server keeps."""
    unlabelled = Split(split.inputs, np.full(len(split), IGNORED))
    examples = prepared.model.examples(unlabelled, config.dataset.max_length)
    found = prepared.training.predict(examples)
    if found is not None:
        file = folder.artifacts / FILE_NAMES[str(config.dataset.hub_config)]
        write_glue_predictions(file, [prepared.dataset.classes[label] for label in found.predicted])
        log.info("predictions for GLUE's server: %s", file)


def _final(config: RunConfig, folder: RunFolder, training: Training) -> Metrics:
    """The last value of each metric; validation at the step whose weights were selected."""
    last = last_values(folder.journal)
    if config.train.select is Select.best:
        selected = last_values(folder.journal, up_to_step=training.progress.best_step)
        last |= {name: value for name, value in selected.items() if name.startswith("val/")}
    return last


def _environment(config: RunConfig, prepared: Prepared) -> dict[str, str | int]:
    training = prepared.training
    assert training.instruments
    return environment(training.system.device) | {
        "precision": training.system.precision,
        "attention": config.model.attention.name,
        "weights": prepared.model.weights,
        "data": prepared.dataset.origin,
        **({"ood_data": prepared.ood.origin} if prepared.ood else {}),
        **training.system.record(training.module),
        **training.instruments.record(),
    }


def _record_out_of_memory(
    folder: RunFolder,
    mirror: Mirror | NoMirror,
    said: str,
    prepared: Prepared | None = None,
    record: dict[str, str | int] | None = None,
) -> None:
    """The summary of a run for which memory did not suffice: what it had measured by then."""
    log.error("out of memory, which is this run's result:\n%s", traceback.format_exc())
    instruments = prepared.training.instruments if prepared else None
    snapshot = instruments.snapshot() if instruments else None
    if snapshot:
        log.info("what was allocated: %s (for https://pytorch.org/memory_viz)", snapshot)
    measured = last_values(folder.journal) if prepared else {}
    replacement = prepared.replacement.to_dict() if prepared else {}
    folder.finish(measured, record or {}, replacement, mirror.reference, out_of_memory=said)
    mirror.finish("FAILED")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _record_failure(folder: RunFolder, mirror: Mirror | NoMirror, error: BaseException, ranks: Ranks) -> None:
    interrupted = isinstance(error, Interrupted | KeyboardInterrupt)
    reason = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
    status = "interrupted" if interrupted else "failed"
    who = "" if ranks.world_size == 1 or interrupted else f"rank {ranks.rank}: "
    folder.fail(status, f"{who}{type(error).__name__}: {reason}")
    if not interrupted:
        log.error("%s", traceback.format_exc())
    mirror.finish("KILLED" if interrupted else "FAILED")


@contextmanager
def _stop_requests() -> Iterator[list[str]]:
    """Names of the stop signals received, acted on between two steps. A second Ctrl-C acts at once."""
    received: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and signal.SIGINT.name in received:
            raise KeyboardInterrupt
        received.append(signal.Signals(number).name)

    before: dict[signal.Signals, Any] = {number: signal.signal(number, note) for number in _STOP_SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _short(metrics: Metrics) -> str:
    return " ".join(f"{name}={value:.4g}" for name, value in metrics.items())
