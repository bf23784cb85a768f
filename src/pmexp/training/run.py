"""One run from its configuration to its summary: build, replace dropout, train, evaluate, measure, record."""

import logging
import signal
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, NoReturn

import numpy as np
import torch
from torch import nn

from pmexp import datasets, models
from pmexp.config import RunConfig, Select, Where
from pmexp.datasets.base import Dataset, Split
from pmexp.datasets.glue import FILE_NAMES, write_glue_predictions
from pmexp.datasets.ood import load_ood
from pmexp.errors import Interrupted, Preempted, RankOutOfMemory, UserError, error_line
from pmexp.extras import missing_named
from pmexp.measure.environment import environment
from pmexp.measure.gradient_check import gradient_error
from pmexp.measure.instruments import Instruments
from pmexp.measure.memory_by_category import not_held
from pmexp.measure.out_of_memory import is_out_of_memory
from pmexp.measure.peak_memory import PeakMemory
from pmexp.measure.precision import attention, compiled_parts, precision
from pmexp.measure.provenance import record_start
from pmexp.measure.tensor_bytes import TensorMemory
from pmexp.metrics.catalog import metric_of
from pmexp.metrics.own import task_metric
from pmexp.models import images
from pmexp.models.adapters import FOLDER, write_adapter
from pmexp.models.base import TaskModel, rates_of_functions
from pmexp.models.examples import EVALUATION
from pmexp.models.objectives import IGNORED
from pmexp.models.positions import computed_length
from pmexp.models.sample import refuse_unable
from pmexp.own_code import refuse_changed
from pmexp.packed_dropout import ReplacementReport
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.journal import Journal, NoJournal
from pmexp.run_folder.place import refuse_unusable
from pmexp.systems import alarm, arithmetic
from pmexp.systems.launch import is_launcher, launch
from pmexp.systems.ranks import Ranks, join
from pmexp.systems.system import System
from pmexp.tracking.trackers import check_installed
from pmexp.training import best_weights, inference, kept_graph, robustness
from pmexp.training.changed_inputs import refuse_changed_inputs, refuse_other_inputs
from pmexp.training.checkpoint import Checkpoints
from pmexp.training.loader import decodes
from pmexp.training.loop import Metrics, Training
from pmexp.training.outcome import chance, samples, weights_digest
from pmexp.training.preflight import check_metrics
from pmexp.training.progress_line import ProgressLine
from pmexp.training.recorder import Description, Recorder, is_finished
from pmexp.training.stop_signals import stop_requests
from pmexp.variants.replace import apply_method, apply_variant, changes_evaluation

log = logging.getLogger(__name__)


class _Wish(IntEnum):
    """Names what a rank wants between two steps; all ranks do the largest wish of any."""

    go_on = 0
    checkpoint = 1
    stop = 2
    make_way = 3  # SIGUSR2: stop, and be started again


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to start: everything built, nothing written."""

    training: Training
    model: TaskModel
    dataset: Dataset
    ood: Dataset | None  # see config.RobustnessConfig
    replacement: ReplacementReport

    @property
    def inputs(self) -> dict[str, str]:
        """What the record says of the data, and of the checkpoint's files."""
        data = self.dataset.record("data") | (self.ood.record("ood_data") if self.ood else {})
        return data | ({"model_digest": self.model.digest} if self.model.digest else {})


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
        return
    check_installed(config.tracking.trackers)
    if is_launcher(config):
        System(config.system)  # what this machine cannot execute is said before any process starts
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
                _train_and_test(config, recorder, prepared, memory, stop)


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


@missing_named()
def prepare(config: RunConfig) -> Prepared:
    """Builds all of a run. Raises UserError where it cannot be built, or a package is not installed."""
    refuse_changed(config.code)
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    arithmetic.set_arithmetic(config.system)
    torch.manual_seed(config.seed)
    check_metrics(config)
    system = System(config.system)
    ranks = join(config.system, system.device)
    dataset = datasets.load(config.dataset)
    _refuse_other_data(ranks, dataset)
    ood = load_ood(config, dataset)
    model = models.build(config, dataset)
    system.before_variant(model.module)
    length, metrics = config.dataset.max_length, config.dataset.metrics
    train, val = (model.examples(split, length) for split in (dataset.train, dataset.val))
    example = None
    if len(train):
        example = train.batch(torch.arange(min(2, len(train))), EVALUATION).to(torch.device("cpu")).inputs
        refuse_unable(config, model.module, example)
    replacement = apply_variant(model.module, config.variant, example)
    method = apply_method(model.module, config.variant)
    system.prepare(model.module)
    training = Training(
        model.module,
        train,
        val,
        config.train,
        metrics,
        config.seed,
        system,
        ranks,
        model.generation,
        method,
        dataset.classes,
    )
    training.replacement = replacement
    # Dropout starts here, whatever building the model drew.
    torch.manual_seed(ranks.seed(_mask_seed(config.seed, config.variant.mask_stream)))
    return Prepared(training, model, dataset, ood, replacement)


def _refuse_other_data(ranks: Ranks, dataset: Dataset) -> None:
    """Raises UserError, on all ranks, where they have loaded different data."""
    if ranks.most(ranks.from_first(dataset.digest) != dataset.digest):
        raise UserError(
            f"dataset: the processes have loaded different data ({dataset.origin}); a loader has to give the "
            "same in each, as by a seed of its own"
        )


def _mask_seed(seed: int, stream: int | None) -> int:
    """The seed of dropout's random numbers: the run's own, or the hash of it with the stream asked for."""
    return seed if stream is None else int(np.random.SeedSequence((seed, stream)).generate_state(2)[1])


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
    recorder.description = _description(prepared, peak, notes)
    checkpoints = Checkpoints(recorder.folder, config.checkpoint, training.ranks, training.system.device)
    resumed = checkpoints.load()
    recorder.open(resumed[1].journal_bytes if resumed else 0)
    if resumed:
        state, _ = resumed
        training.restore(state["training"])
        peak.reached(state["peak_bytes"])
        log.info("resumed at step %d of %d", training.progress.step, training.last_step)
    if training.ranks.is_first:
        record_start(recorder.folder, training.progress.step, prepared.inputs)
    checked, notes["gradient_check"] = _gradient_check(config, prepared)
    if said := changes_evaluation(config.variant):
        log.warning("%s", said)
        notes["evaluation"] = said
    if not resumed:
        length = computed_length(prepared.model.tokens_per_sample, prepared.model.module)
        planned = {"progress/steps_total": training.last_step, "progress/computed_length": length}
        recorder.journal.write(0, planned | checked)
    peak.restart()
    _train(training, recorder, checkpoints, peak, stop)
    outcome = _outcome(prepared, config)
    tested = _test(prepared, config, recorder.folder, memory)
    recorder.journal.write(training.progress.step, {"memory/peak_bytes": peak.bytes()} | tested)
    if config.measure.kept_graph:
        twice, notes["kept_graph"] = kept_graph.measure(training, memory)
        recorder.journal.write(training.progress.step, twice)
    checkpoints.wait()
    final = _final(config, recorder.journal, training)
    notes |= not_held(final)
    recorder.finish(final, outcome)


def _description(prepared: Prepared, peak: PeakMemory, notes: Mapping[str, Any]) -> Description:
    training = prepared.training
    return Description(
        environment=lambda: _environment(prepared, peak) | dict(notes),
        replacement=lambda: _replacement(prepared),
        snapshot=training.instruments.snapshot,
        last=lambda: (training.progress.step, {"memory/peak_bytes": float(peak.bytes())}),
    )


def _replacement(prepared: Prepared) -> dict[str, Any]:
    """What the record says of the model's dropout, which the first step may complete, and of the method."""
    report = prepared.training.method.report
    return prepared.replacement.to_dict() | ({"method": dict(report)} if report else {})


def _gradient_check(config: RunConfig, prepared: Prepared) -> tuple[Metrics, str]:
    """The error of the gradient of the variant's dropout, at the highest rate replaced, and how it was
    measured; nothing, and why, where it was not."""
    training, replaced = prepared.training, prepared.replacement
    module: Any = training.module
    if compiled_parts(module):
        return {}, "not checked: the layers are compiled, and eager dropout is another"
    rates = [module.get_submodule(name).p for name in replaced.modules]
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
    line = ProgressLine(training.progress.step, training.last_step, training.batch_size, peak.bytes)
    with closing(training.steps()) as steps, line.shown(training.ranks.is_first):  # its workers end with it
        for step, metrics in steps:
            recorder.journal.write(step, metrics)
            line.stepped(step, metrics)
            if step == 1 and training.unnamed_masks:
                log.warning("masks that no report names: %s", "; ".join(training.unnamed_masks))
            if "val/loss" in metrics:
                log.info("step %d/%d %s", step, training.last_step, _short(metrics) + _waited(training))
                if keeps_best and training.found_best:
                    best_weights.save(recorder.folder, training.engine, step, checkpoints.best_steps())
            wish = _Wish(training.ranks.most(_wish(stop, checkpoints)))
            if wish is not _Wish.go_on:
                state = {"training": training.state(), "peak_bytes": peak.bytes()}
                recorder.check_claim()
                checkpoints.save(state, step, training.progress.best_step, recorder.journal.sync())
            if wish >= _Wish.stop:
                checkpoints.wait()
                training.ranks.wait()
                signalled = stop[0] if stop else "a stop signal"
                raise (Preempted if wish is _Wish.make_way else Interrupted)(
                    f"{signalled} at step {step} of {training.last_step}; run the same command to go on"
                )


def _outcome(prepared: Prepared, config: RunConfig) -> dict[str, Any]:
    """What the record says of the model after the last step. Every rank has to call it."""
    training = prepared.training
    if shared := config.train.shared_with:
        return {"training": f"training shared with run {shared}", "measured_steps": training.progress.step}
    weights = training.engine.weights()
    model_config: Any = getattr(training.module, "config", None)
    vocabulary = getattr(model_config, "vocab_size", None)
    return {
        "weights_sha256": weights_digest(weights),
        "chance": chance(prepared.dataset, config.dataset.metrics, vocabulary),
        "samples": samples(prepared.dataset),
    }


def _wish(stop: Sequence[str], checkpoints: Checkpoints) -> _Wish:
    if stop:
        return _Wish.make_way if signal.SIGUSR2.name in stop else _Wish.stop
    return _Wish.checkpoint if checkpoints.is_due() else _Wish.go_on


def _test(prepared: Prepared, config: RunConfig, folder: RunFolder, memory: TensorMemory) -> Metrics:
    """Returns the speed of the steps taken, and what the selected weights do on the test split: nothing for
    a run without scores."""
    training = prepared.training
    measured = training.timer.metrics(
        training.batch_size, training.tokens_per_sample(prepared.model.tokens_per_sample)
    )
    measured |= training.instruments.finish(measured.get("speed/step_ms"))
    if said := training.timer.waited_too_long():
        log.warning("%s", said)
    if not config.train.has_scores:
        return measured | inference.measure(training, memory)
    if config.train.select is Select.best:
        best_weights.load(folder, training.engine, training.progress.best_step)
    if prepared.model.adapters:
        weights = training.engine.weights()
        if training.ranks.is_first:
            write_adapter(training.module, weights, folder.artifacts / FOLDER)
    measured |= inference.measure(training, memory)
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
    evaluation = prepared.training.predict(examples)
    if evaluation is not None:
        file = folder.artifacts / FILE_NAMES[str(config.dataset.hub_config)]
        write_glue_predictions(file, [prepared.dataset.classes[label] for label in evaluation.predicted])
        log.info("predictions for GLUE's server: %s", file)


def _final(config: RunConfig, journal: Journal | NoJournal, training: Training) -> Metrics:
    """The last value of each metric; validation at the step whose weights were selected. A run that shares
    its training has none of those that follow from the whole of it."""
    last = journal.last_values()
    if config.train.shared_with:
        return {name: value for name, value in last.items() if not metric_of(name).of_training}
    if config.train.select is Select.best:
        selected = journal.last_values(up_to_step=training.progress.best_step)
        last |= {name: value for name, value in selected.items() if name.startswith("val/")}
    return last


def _environment(prepared: Prepared, peak: PeakMemory) -> dict[str, str | int]:
    training = prepared.training
    return environment(training.system.device) | {
        **precision(training.module, training.system.precision),
        **arithmetic.record(training.system.device),
        "attention": attention(training.module),
        "weights": prepared.model.weights,
        **({"architecture": prepared.model.architecture} if prepared.model.architecture else {}),
        **({"adapters": prepared.model.adapters} if prepared.model.adapters else {}),
        **prepared.inputs,
        **training.system.record(training.module),
        **training.instruments.record(),
        **{name: record() for name in training.metrics if (record := task_metric(name).record)},
        **({"generation": training.generation.record()} if training.generation else {}),
        "peak_memory_source": peak.source,
        "data_workers": training.workers,
        **({"data_wait": said} if (said := training.timer.waited_too_long()) else {}),
        **({"pictures": images.record()} if decodes(training.train) else {}),
        **({"unnamed_masks": "; ".join(training.unnamed_masks)} if training.unnamed_masks else {}),
    }


def _waited(training: Training) -> str:
    said = training.timer.waited_too_long()
    return f"; {said}" if said else ""


def _short(metrics: Metrics) -> str:
    return " ".join(f"{name}={value:.4g}" for name, value in metrics.items())
