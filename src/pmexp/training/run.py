"""One run from its configuration to its summary: build, replace dropout, train, evaluate, measure, record."""

import logging
import signal
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from enum import IntEnum
from typing import Any, NoReturn

from torch import nn

from pmexp.config import RunConfig, Select, Where
from pmexp.errors import Interrupted, Preempted, RankOutOfMemory, UserError, error_line
from pmexp.measure.environment import environment
from pmexp.measure.gradient_check import gradient_error
from pmexp.measure.instruments import Instruments
from pmexp.measure.memory_by_category import not_held
from pmexp.measure.out_of_memory import is_out_of_memory
from pmexp.measure.peak_memory import PeakMemory
from pmexp.measure.precision import compiled_parts
from pmexp.measure.provenance import record_start
from pmexp.measure.tensor_bytes import TensorMemory
from pmexp.models.base import rates_of_functions
from pmexp.models.positions import computed_length
from pmexp.own_code import blamed, failed
from pmexp.run_folder.failure import FailureKind, kind_of
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.mirrored import lacked
from pmexp.run_folder.place import refuse_unusable
from pmexp.systems import alarm
from pmexp.systems.launch import is_launcher, launch
from pmexp.systems.ranks import Ranks
from pmexp.systems.system import System
from pmexp.tracking.trackers import check_installed
from pmexp.training import best_weights, kept_graph, loss_halves
from pmexp.training.after_training import final, outcome, tested
from pmexp.training.changed_inputs import refuse_changed_inputs, refuse_other_inputs
from pmexp.training.checkpoint import Checkpoints
from pmexp.training.conditions import meet
from pmexp.training.described import description, not_updated, noticed
from pmexp.training.dropout_rates import rates_of
from pmexp.training.loop import Metrics, Training
from pmexp.training.other_code import begun_with_other_code
from pmexp.training.prepared import Prepared, prepare
from pmexp.training.progress_line import ProgressLine
from pmexp.training.recorder import Recorder, is_finished
from pmexp.training.resuming import restore, state_of
from pmexp.training.stop_signals import stop_requests
from pmexp.variants.replace import apply_variant, changes_evaluation

log = logging.getLogger(__name__)


class _Wish(IntEnum):
    """Names what a rank wants between two steps; all ranks do the largest wish of any."""

    go_on = 0
    checkpoint = 1
    stop = 2
    make_way = 3  # SIGUSR2: stop, and be started again


def run(config: RunConfig, capture_output: bool = False) -> None:
    """Executes one run unless it is finished already. `capture_output` sends all output to the run's log.

    Raises UserError before anything is written, also where nothing can be written, or the data or the
    pretrained weights have changed since the run was finished or wrote its checkpoint; MachineError where the
    disk is full; RunClaimed (a UserError) where another process executes the run, and Interrupted after a
    stop signal.
    """
    folder = RunFolder(config.folder)
    if not folder.is_finished():
        refuse_unusable(config.folder, "runs_dir")
    refuse_changed_inputs([config])
    if is_finished(folder):
        folder.drop_resume_checkpoints()  # which a kill just after the summary leaves
        if said := lacked(config.folder.parent, {folder.mirrored: config.tracking.trackers}):
            log.info("%s", said)
        return
    check_installed(config.tracking.trackers)
    if said := begun_with_other_code(config):
        log.warning("%s", said)
    if is_launcher(config):
        System(config.system)  # what this machine cannot execute is said before any process starts
        if folder.is_claimed():
            with folder.claimed():  # raises, unless somebody only looked whether it is claimed
                pass
        try:
            launch(config, capture_output)
        except RankOutOfMemory as error:
            record_out_of_memory(config, str(error), capture_output)
        return
    try:
        _execute_here(config, capture_output)
    except Exception as error:
        if not isinstance(error, Interrupted):  # on which the ranks have agreed
            alarm.ring(error_line(error))
        raise


def _execute_here(config: RunConfig, capture_output: bool) -> None:
    """Executes the run on this process, perhaps one of several."""
    with stop_requests() as stop:
        try:
            with _own_code_blamed(config):
                prepared = prepare(config)
            refuse_other_inputs(config, prepared.inputs)
            memory = TensorMemory(prepared.training.system.device)
            prepared.training.instruments = _instruments(config, prepared.training, memory)
        except UserError:
            raise
        except Exception as error:
            if config.system.processes > 1:  # whoever has started them puts it on record
                raise
            if not is_out_of_memory(error):
                _record_failure(config, error, capture_output)
            record_out_of_memory(config, error_line(error), capture_output)
            return
        recorder = Recorder(config, prepared.training.ranks)
        with recorder.turn(capture_output) as ours:
            if ours:
                log.info("%s", prepared.replacement)
                with _own_code_blamed(config), prepared.changes.kept_in_mind():
                    _train_and_test(config, recorder, prepared, memory, stop)


@contextmanager
def _own_code_blamed(config: RunConfig) -> Iterator[None]:
    """Has what somebody's code raises, wherever it is called from, end as a UserError that names its key, its
    path and its line. What the machine lacks, and running out of memory, pass."""
    try:
        yield
    except (UserError, Interrupted):
        raise
    except Exception as error:
        said = None if is_out_of_memory(error) else blamed(error, config.own_code)
        if said is None or kind_of(error) is FailureKind.infrastructure:
            raise
        raise failed(*said, error) from error


def record_out_of_memory(config: RunConfig, said: str, capture_output: bool = False) -> None:
    """Writes the summary of a run for which memory did not suffice to build it. Raises RunClaimed."""
    recorder = Recorder(config, Ranks())
    with recorder.turn(capture_output) as ours:
        if ours:
            recorder.open(keep_bytes=0)
            record_start(recorder.folder, resumed_at=0)
            recorder.out_of_memory(said)


def _record_failure(config: RunConfig, error: Exception, capture_output: bool) -> NoReturn:
    """Puts on record why a run could not be built, and raises it."""
    with Recorder(config, Ranks()).turn(capture_output):
        raise error


def _instruments(config: RunConfig, training: Training, memory: TensorMemory) -> Instruments:
    folder = RunFolder(config.folder)
    system = training.system
    precision = system.precision.split()[0]  # without "autocast"
    artifacts = folder.artifacts if training.ranks.is_first else None
    return Instruments(
        config.measure, training.module, system.device, precision, artifacts, memory, training.held
    )


def _train_and_test(
    config: RunConfig, recorder: Recorder, prepared: Prepared, memory: TensorMemory, stop: list[str]
) -> None:
    """Trains and tests with every outcome on record. Every rank goes through it."""
    training = prepared.training
    peak = memory.process
    notes: dict[str, Any] = {"gradient_check": "the run ended before"}
    recorder.description = description(prepared, peak, notes)
    checkpoints = Checkpoints(recorder.folder, config.checkpoint, training.ranks, training.system.device)
    resumed = checkpoints.load()
    recorder.open(resumed[1].journal_bytes if resumed else 0)
    if resumed:
        state, _ = resumed
        restore(training, state["training"])
        peak.reached(state["peak_bytes"])
        log.info("resumed at step %d of %d", training.progress.step, training.plan.last_step)
        if lost := training.progress.resumed_without:
            log.warning("resumed_without: %s", lost)
    if other := meet(training.progress, environment(training.system.device)):
        log.warning("goes on under other conditions: %s; a report compares no speed or memory of it", other)
    if training.ranks.is_first:
        record_start(recorder.folder, training.progress.step, prepared.inputs)
    checked, notes["gradient_check"] = _gradient_check(config, prepared)
    if said := changes_evaluation(config.variant):
        log.warning("%s", said)
        notes["evaluation"] = said
    if said := not_updated(training):
        log.warning("%s", said)
    if not resumed:
        length = computed_length(prepared.model.tokens_per_sample, prepared.model.module)
        planned = {"progress/steps_total": training.plan.last_step, "progress/computed_length": length}
        recorder.write(0, planned | checked)
    peak.restart()
    _train(training, recorder, checkpoints, peak, stop)
    peak_bytes = peak.bytes()  # what follows, such as attacks on test samples, is no training
    weights = outcome(prepared, config)
    if training.selected_nothing:
        notes["selection"] = (
            f"none: val/{training.metrics[0]} was no finite number in any evaluation; the last step's "
            "weights were tested"
        )
    scores = tested(prepared, config, recorder.folder, memory)
    recorder.write(training.progress.step, {"memory/peak_bytes": peak_bytes} | scores)
    if config.measure.kept_graph:
        twice, notes["kept_graph"] = kept_graph.measure(training, memory)
        recorder.write(training.progress.step, twice)
    if said := loss_halves.said(training):
        log.warning("%s", said)
        notes["loss_scale"] = said
    checkpoints.wait()
    values = final(config, recorder.journal, training)
    notes |= not_held(values)
    recorder.finish(values, weights)


def _gradient_check(config: RunConfig, prepared: Prepared) -> tuple[Metrics, str]:
    """The error of the gradient of the variant's dropout, at the highest rate replaced, and how it was
    measured; nothing, and why, where it was not."""
    training, replaced = prepared.training, prepared.replacement
    module: Any = training.module
    if compiled_parts(module):
        return {}, "not checked: the layers are compiled, and eager dropout is another"
    if config.variant.apply and config.variant.dropout == "stock":
        return {}, "not checked: the dropout is torch's, and variant.apply cannot be tried by itself"
    there = rates_of(module, None)  # a method may have taken some out
    rates = [there[name] for name in replaced.modules if name in there]
    if replaced.functions:
        rates += rates_of_functions(config.model, getattr(module, "config", None))
    rates = [rate for rate in rates if 0.0 < rate < 1.0]
    if not rates:
        return {}, "not checked: no dropout replaced has a rate between 0 and 1"
    alone = nn.Sequential(nn.Dropout(max(rates)))
    apply_variant(alone, replace(config.variant, where=Where.all))
    error = gradient_error(alone, training.system.device)
    return {"check/gradient_error": error}, f"float64 on {training.system.device.type}"


def _train(
    training: Training,
    recorder: Recorder,
    checkpoints: Checkpoints,
    peak: PeakMemory,
    stop: list[str],
) -> None:
    """Takes the steps and writes what goes to disk between them. A stop signal ends it with a checkpoint and
    Interrupted."""
    keeps_best = training.config.select is Select.best
    plan, begun_at = training.plan, training.progress.step
    line = ProgressLine(begun_at, plan.last_step, training.batch_size, peak.bytes, plan.evaluations_by)
    with closing(training.steps()) as steps, line.shown(training.ranks.is_first):  # its workers end with it
        for step, metrics in steps:
            recorder.stepped(step, metrics)
            line.stepped(step, metrics, training.step_seconds)
            for said in noticed(training):
                log.warning("%s", said)
            if "val/loss" in metrics:
                log.info("step %d/%d %s", step, plan.last_step, _short(metrics))
                if said := training.timer.newly_waited_too_long():
                    log.warning("this run %s", said)
                if keeps_best and training.found_best:
                    best_weights.save(recorder.folder, training.engine, step, checkpoints.best_steps())
            wish = _Wish(training.ranks.most(_wish(stop, checkpoints)))
            if wish is not _Wish.go_on:
                state = {"training": state_of(training), "peak_bytes": peak.bytes()}
                recorder.check_claim()
                checkpoints.save(state, step, training.progress.best_step, recorder.journal.sync())
            if wish >= _Wish.stop:
                checkpoints.wait()
                training.ranks.wait()
                signalled = stop[0] if stop else "a stop signal"
                raise (Preempted if wish is _Wish.make_way else Interrupted)(
                    f"{signalled} at step {step} of {plan.last_step}; run the same command to go on"
                )
    if training.progress.step < plan.last_step:
        log.info(
            "stopped at step %d of %d: no better score within train.patience=%s evaluations",
            training.progress.step,
            plan.last_step,
            training.config.patience,
        )


def _wish(stop: Sequence[str], checkpoints: Checkpoints) -> _Wish:
    if stop:
        return _Wish.make_way if signal.SIGUSR2.name in stop else _Wish.stop
    return _Wish.checkpoint if checkpoints.is_due() else _Wish.go_on


def _short(metrics: Metrics) -> str:
    return " ".join(f"{name}={value:.4g}" for name, value in metrics.items())
