"""Measures and scores what the steps have made: speed, and what the selected weights do on the test split."""

import logging
from typing import Any

import numpy as np

from pmexp.config import RunConfig
from pmexp.datasets.base import Split
from pmexp.datasets.glue import FILE_NAMES, write_glue_predictions
from pmexp.measure.tensor_bytes import TensorMemory
from pmexp.metrics.catalog import metric_of
from pmexp.models.adapters import FOLDER, write_adapter
from pmexp.models.objectives import IGNORED
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.journal import Journal, NoJournal
from pmexp.training import best_weights, inference, robustness
from pmexp.training.loop import Metrics, Training
from pmexp.training.outcome import chance, samples, weights_digest
from pmexp.training.prepared import Prepared

log = logging.getLogger(__name__)


def tested(prepared: Prepared, config: RunConfig, folder: RunFolder, memory: TensorMemory) -> Metrics:
    """Returns the speed of the steps taken, and what the selected weights do on the test split: nothing for
    a run without scores."""
    training = prepared.training
    measured = training.timer.metrics(
        training.batch_size, training.tokens_per_sample(prepared.model.tokens_per_sample)
    )
    measured |= training.instruments.finish(measured.get("speed/step_ms"))
    for said in filter(None, (training.timer.newly_waited_too_long(), training.timer.shared_cores())):
        log.warning("this run %s", said)
    if not config.train.has_scores:
        return measured | inference.measure(training, memory)
    if training.selects:
        best_weights.load(folder, training.engine, training.progress.best_step)
    if prepared.model.adapters:
        weights = training.engine.weights()
        if training.ranks.is_first:
            write_adapter(training.module, weights, folder.artifacts / FOLDER)
    measured |= inference.measure(training, memory)
    dataset, length = prepared.dataset, config.dataset.max_length
    if dataset.test is not None:
        tested = training.evaluator.evaluate(prepared.model.examples(dataset.test, length))
        measured |= {f"test/{name}": value for name, value in tested.items()}
    if dataset.unlabelled_test is not None and config.dataset.hub_config in FILE_NAMES:
        _predict_for_glue(prepared, dataset.unlabelled_test, config, folder)
    return measured | robustness.measure(config, training, prepared.model, dataset, prepared.ood)


def _predict_for_glue(prepared: Prepared, split: Split, config: RunConfig, folder: RunFolder) -> None:
    """Writes what the selected weights say of a test split whose labels GLUE's server keeps."""
    unlabelled = Split(split.inputs, np.full(len(split), IGNORED))
    examples = prepared.model.examples(unlabelled, config.dataset.max_length)
    evaluation = prepared.training.evaluator.predict(examples)
    if evaluation is not None:
        file = folder.artifacts / FILE_NAMES[str(config.dataset.hub_config)]
        write_glue_predictions(file, [prepared.dataset.classes[label] for label in evaluation.predicted])
        log.info("predictions for GLUE's server: %s", file)


def outcome(prepared: Prepared, config: RunConfig) -> dict[str, Any]:
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


def final(config: RunConfig, journal: Journal | NoJournal, training: Training) -> Metrics:
    """The last value of each metric; validation at the step whose weights were selected. A run that shares
    its training has none of those that follow from the whole of it."""
    last = journal.last_values()
    if config.train.shared_with:
        return {name: value for name, value in last.items() if not metric_of(name).of_training}
    if training.selects:
        selected = journal.last_values(up_to_step=training.progress.best_step)
        last |= {name: value for name, value in selected.items() if name.startswith("val/")}
    return last
