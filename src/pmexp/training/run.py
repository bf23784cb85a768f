"""One run from its configuration to its summary: build, replace dropout, train, evaluate, measure, record."""

import logging
import signal
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from torch import nn

from pmexp import datasets, models, variants
from pmexp.config import RunConfig, Select, Where
from pmexp.config.kinds import KINDS
from pmexp.datasets.base import Dataset, Split
from pmexp.datasets.glue import FILE_NAMES, write_glue_predictions
from pmexp.datasets.ood import load_ood
from pmexp.errors import Interrupted, Preempted, RankOutOfMemory, RunClaimed, said_of
from pmexp.measure.compiled import compiled_parts
from pmexp.measure.environment import environment
from pmexp.measure.gradient_check import gradient_error
from pmexp.measure.instruments import Instruments
from pmexp.measure.memory_by_category import not_held
from pmexp.measure.out_of_memory import is_out_of_memory
from pmexp.measure.peak_memory import PeakMemory
from pmexp.measure.precision import attention, precision
from pmexp.measure.provenance import record_start
from pmexp.models.base import TaskModel
from pmexp.models.examples import EVALUATION, IGNORED
from pmexp.packed_dropout import ReplacementReport
from pmexp.run_folder.failure import Kind, kind_of
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.journal import Journal, NoJournal
from pmexp.run_folder.summary import write_summary
from pmexp.systems import alarm
from pmexp.systems.launch import is_launcher, launch
from pmexp.systems.ranks import Ranks, join
from pmexp.systems.system import System
from pmexp.tracking import Mirror, NoMirror, open_mirror
from pmexp.training import best_weights, robustness
from pmexp.training.changed_inputs import refuse_changed_inputs, refuse_other_inputs
from pmexp.training.checkpoint import Checkpoints
from pmexp.training.loop import Metrics, Training
from pmexp.training.stop_signals import stop_requests

log = logging.getLogger(__name__)


class _Wish(IntEnum):
    """What a rank wants between two steps; the largest of any rank is done by all."""

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

    Raises UserError before anything is written, also where the data or the pretrained weights have changed
    since the run was finished or wrote its checkpoint; RunClaimed (one of them) where another process
    executes the run, and Interrupted after a stop signal.
    """
    folder = RunFolder(config.folder)
    refuse_changed_inputs([config])
    if _finished(folder):
        return
    if is_launcher(config):
        System(config.system)  # what this machine cannot execute is said before any process starts
        try:
            launch(config, capture_output)
        except RankOutOfMemory as error:
            record_out_of_memory(config, str(error), capture_output)
        return
    try:
        _executed(config, folder, capture_output)
    except Exception as error:
        if not isinstance(error, Interrupted):  # on which the ranks have agreed
            alarm.ring(said_of(error))
        raise


def _executed(config: RunConfig, folder: RunFolder, capture_output: bool) -> None:
    """The run on this process, perhaps one of several."""
    with stop_requests() as stop:
        try:
            prepared = prepare(config)
            refuse_other_inputs(config, prepared.inputs)
            prepared.training.instruments = _instruments(config, prepared.training, folder)
        except Exception as error:
            if not is_out_of_memory(error) or config.system.processes > 1:
                raise
            record_out_of_memory(config, said_of(error), capture_output)
            return
        with _our_turn(folder, prepared.training.ranks) as ours:
            if ours:
                with _opened(config, folder, prepared.training.ranks, capture_output):
                    log.info("%s", prepared.replacement)
                    _recorded(config, folder, prepared, stop)


def record_out_of_memory(config: RunConfig, said: str, capture_output: bool = False) -> None:
    """The summary of a run for which memory did not suffice to build it. Raises RunClaimed."""
    folder = RunFolder(config.folder)
    with (
        folder.claimed(),
        folder.opened(config.to_dict(), capture_output),
        Journal(folder.journal) as journal,
    ):
        _record_out_of_memory(config, folder, journal, open_mirror(config, folder), said)


def _finished(folder: RunFolder) -> bool:
    if folder.is_finished():
        log.info("%s is finished: %s", folder.path.name, folder.summary)
    return folder.is_finished()


@contextmanager
def _our_turn(folder: RunFolder, ranks: Ranks) -> Iterator[bool]:
    """Rank 0 claims the run; False on every rank where it got finished since this process looked first."""
    with ExitStack() as claim:
        said = ""
        if ranks.is_first:
            try:
                claim.enter_context(folder.claimed())
            except RunClaimed as error:
                said = str(error)
        if said := ranks.from_first(said):
            raise RunClaimed(said)
        yield not ranks.from_first(_finished(folder))


@contextmanager
def _opened(config: RunConfig, folder: RunFolder, ranks: Ranks, capture_output: bool) -> Iterator[None]:
    with folder.opened(config.to_dict(), capture_output) if ranks.is_first else nullcontext():
        ranks.wait()
        with nullcontext() if ranks.is_first else folder.joined(ranks.rank):
            yield


def prepare(config: RunConfig) -> Prepared:
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    torch.manual_seed(config.seed)
    system = System(config.system)
    ranks = join(config.system, system.device)
    dataset = datasets.load(config.dataset)
    ood = load_ood(config, dataset)
    model = models.build(config, dataset)
    system.before_variant(model.module)
    length, metrics = config.dataset.max_length, config.dataset.metrics
    train, val = (model.examples(split, length) for split in (dataset.train, dataset.val))
    few = train.batch(torch.arange(min(2, len(train))), EVALUATION).inputs if len(train) else None
    replacement = variants.apply(model.module, config.variant, few)
    system.prepare(model.module)
    training = Training(model.module, train, val, config.train, metrics, config.seed, system, ranks)
    training.replacement = replacement
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
    checkpoints = Checkpoints(folder, config.checkpoint, training.ranks, training.system.device)
    resumed = checkpoints.load()
    keep_bytes = peak_before = 0
    if resumed:
        state, manifest = resumed
        training.restore(state["training"])
        keep_bytes, peak_before = manifest.journal_bytes, state["peak_bytes"]
        log.info("resumed at step %d of %d", training.progress.step, training.total_steps)
    with Journal(folder.journal, keep_bytes) if first else nullcontext(NoJournal()) as journal:
        mirror = open_mirror(config, folder) if first else NoMirror()
        try:
            if first:
                record_start(folder, training.progress.step, prepared.inputs)
            checked, how_checked = _gradient_check(config, prepared)
            if not resumed:
                journal.write(0, {"progress/steps_total": training.total_steps} | checked)
            peak = PeakMemory(training.system.device, peak_before)
            _train(training, folder, journal, checkpoints, peak, stop)
            journal.write(
                training.progress.step, {"memory/peak_bytes": peak.bytes()} | _test(prepared, config, folder)
            )
            checkpoints.wait()
            if not first:
                return
            final = _final(config, journal, training)
            record = _environment(config, prepared, peak, how_checked) | not_held(final)
            _finish(config, folder, journal, final, record, prepared.replacement.to_dict(), mirror.reference)
        except Exception as error:
            if not is_out_of_memory(error):
                _record_failure(folder, mirror, error, training.ranks)
                raise
            journal.write(training.progress.step, {"memory/peak_bytes": peak.bytes()})
            record = _environment(config, prepared, peak, how_checked)
            said = _who(training.ranks) + said_of(error)
            _record_out_of_memory(config, folder, journal, mirror, said, prepared, record)
            if training.ranks.world_size > 1:
                raise  # the other ranks have to end too
            return
        except BaseException as error:
            _record_failure(folder, mirror, error, training.ranks)
            raise
        mirror.finish("FINISHED")


def _gradient_check(config: RunConfig, prepared: Prepared) -> tuple[Metrics, str]:
    """The error of the gradient of the variant's dropout, at the highest rate replaced, and how it was
    measured; nothing, and why, where it was not."""
    training, replaced = prepared.training, prepared.replacement
    module: Any = training.module
    if compiled_parts(module):
        return {}, "not checked: the layers are compiled, and eager dropout is another"
    rates = [module.get_submodule(name).p for name in replaced.modules]
    if replaced.functions:
        rates += [getattr(module.config, name) for name in KINDS[config.model.kind].attention_dropout]
    rates = [rate for rate in rates if 0.0 < rate < 1.0]
    if not rates:
        return {}, "not checked: no dropout replaced has a rate between 0 and 1"
    alone = nn.Sequential(nn.Dropout(max(rates)))
    variants.apply(alone, replace(config.variant, where=Where.all))
    error = gradient_error(alone, training.system.device)
    return {"check/gradient_error": error}, f"float64 on {training.system.device.type}"


def _train(
    training: Training,
    folder: RunFolder,
    journal: Journal | NoJournal,
    checkpoints: Checkpoints,
    peak: PeakMemory,
    stop: list[str],
) -> None:
    """Steps and what goes to disk between them. A stop signal ends it with a checkpoint and Interrupted."""
    keeps_best = training.config.select is Select.best
    for step, metrics in training.steps():
        journal.write(step, metrics)
        if step == 1 and training.unnamed_masks:
            log.warning("masks that no report names: %s", "; ".join(training.unnamed_masks))
        if "val/loss" in metrics:
            log.info("step %d/%d %s", step, training.total_steps, _short(metrics))
            if keeps_best and training.found_best:
                best_weights.save(folder, training.engine, step, checkpoints.best_steps())
        wish = _Wish(training.ranks.most(_wish(stop, checkpoints)))
        if wish is not _Wish.go_on:
            state = {"training": training.state(), "peak_bytes": peak.bytes()}
            checkpoints.save(state, step, training.progress.best_step, journal.sync())
        if wish >= _Wish.stop:
            checkpoints.wait()
            training.ranks.wait()
            signalled = stop[0] if stop else "a stop signal"
            raise (Preempted if wish is _Wish.make_way else Interrupted)(
                f"{signalled} at step {step} of {training.total_steps}; run the same command to go on"
            )


def _wish(stop: Sequence[str], checkpoints: Checkpoints) -> _Wish:
    if stop:
        return _Wish.make_way if signal.SIGUSR2.name in stop else _Wish.stop
    return _Wish.checkpoint if checkpoints.is_due() else _Wish.go_on


def _test(prepared: Prepared, config: RunConfig, folder: RunFolder) -> Metrics:
    """Speed of the steps taken, and the test split under the selected weights."""
    training = prepared.training
    measured = training.timer.metrics(training.batch_size, prepared.model.tokens_per_sample)
    assert training.instruments
    measured |= training.instruments.finish(measured.get("speed/step_ms"))
    if config.train.select is Select.best:
        best_weights.load(folder, training.engine, training.progress.best_step)
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


def _final(config: RunConfig, journal: Journal | NoJournal, training: Training) -> Metrics:
    """The last value of each metric; validation at the step whose weights were selected."""
    last = journal.last_values()
    if config.train.select is Select.best:
        selected = journal.last_values(up_to_step=training.progress.best_step)
        last |= {name: value for name, value in selected.items() if name.startswith("val/")}
    return last


def _environment(
    config: RunConfig, prepared: Prepared, peak: PeakMemory, how_checked: str
) -> dict[str, str | int]:
    training = prepared.training
    assert training.instruments
    return environment(training.system.device) | {
        **precision(training.module, training.system.precision),
        "attention": attention(training.module),
        "weights": prepared.model.weights,
        **({"architecture": prepared.model.architecture} if prepared.model.architecture else {}),
        **prepared.inputs,
        **training.system.record(training.module),
        **training.instruments.record(),
        "peak_memory_source": peak.source,
        "gradient_check": how_checked,
        **({"unnamed_masks": "; ".join(training.unnamed_masks)} if training.unnamed_masks else {}),
    }


def _record_out_of_memory(
    config: RunConfig,
    folder: RunFolder,
    journal: Journal | NoJournal,
    mirror: Mirror | NoMirror,
    said: str,
    prepared: Prepared | None = None,
    record: dict[str, str | int] | None = None,
) -> None:
    """The summary of a run for which memory did not suffice: what it had measured by then."""
    if prepared is None:  # its start is not on record yet
        record_start(folder, resumed_at=0)
    log.error("out of memory, which is this run's result:\n%s", traceback.format_exc())
    instruments = prepared.training.instruments if prepared else None
    snapshot = instruments.snapshot() if instruments else None
    if snapshot:
        log.info("what was allocated: %s (for https://pytorch.org/memory_viz)", snapshot)
    measured = journal.last_values() if prepared else {}
    replacement = prepared.replacement.to_dict() if prepared else {}
    _finish(config, folder, journal, measured, record or {}, replacement, mirror.reference, said)
    mirror.finish("FAILED")


def _finish(
    config: RunConfig,
    folder: RunFolder,
    journal: Journal | NoJournal,
    metrics: Metrics,
    environment: Mapping[str, Any],
    replacement: Mapping[str, Any],
    tracking: Mapping[str, str] | None,
    out_of_memory: str = "",
) -> None:
    """The summary, once the journal is on disk, and then nothing that only an unfinished run needs."""
    journal.sync()
    run = {"run_id": config.run_id, "name": config.name, "labels": config.labels}
    run |= {"settings": config.settings, "protocol": config.to_dict()["protocol"]}
    result = (metrics, environment, replacement, tracking, journal.digest(), out_of_memory)
    write_summary(folder.summary, run, *result)
    folder.drop_resume_checkpoints()


def _record_failure(folder: RunFolder, mirror: Mirror | NoMirror, error: BaseException, ranks: Ranks) -> None:
    kind = Kind.interrupted if isinstance(error, Interrupted | KeyboardInterrupt) else kind_of(error)
    who = "" if kind is Kind.interrupted else _who(ranks)
    with suppress(OSError):  # a full disk: the error itself says so
        folder.fail(kind, f"{who}{said_of(error)}")
    if kind is not Kind.interrupted:
        log.error("%s", traceback.format_exc())
    mirror.finish("KILLED" if kind is Kind.interrupted else "FAILED")


def _who(ranks: Ranks) -> str:
    return f"rank {ranks.rank}: " if ranks.world_size > 1 else ""


def _short(metrics: Metrics) -> str:
    return " ".join(f"{name}={value:.4g}" for name, value in metrics.items())
