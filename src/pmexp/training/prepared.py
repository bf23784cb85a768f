"""Builds what a run consists of, from data to dropout, and writes nothing."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from pmexp import datasets, models
from pmexp.config import RunConfig
from pmexp.datasets.base import Dataset
from pmexp.datasets.ood import load_ood
from pmexp.errors import UserError
from pmexp.extras import missing_named
from pmexp.models.base import TaskModel
from pmexp.models.examples import EVALUATION
from pmexp.models.sample import refuse_unable
from pmexp.own_code import refuse_changed
from pmexp.packed_dropout import ReplacementReport, backend
from pmexp.systems import arithmetic
from pmexp.systems.ranks import Ranks, join
from pmexp.systems.system import System
from pmexp.training.dropout_rates import rates_of
from pmexp.training.loop import Training
from pmexp.training.preflight import check_metrics
from pmexp.training.process_changes import ProcessChanges
from pmexp.training.reseeding import BuiltBy
from pmexp.training.robustness import check_attack
from pmexp.training.woken import woken
from pmexp.variants.replace import apply_method, apply_variant

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to start: everything built, nothing written."""

    training: Training
    model: TaskModel
    dataset: Dataset
    ood: Dataset | None  # see config.RobustnessConfig
    replacement: ReplacementReport
    woken: str = ""  # says which frozen parts of a model of one's own do not stay in eval mode
    reseeded: Sequence[str] = ()  # says where the code that builds the run has seeded torch anew
    changes: ProcessChanges = field(default_factory=ProcessChanges)  # made by the run's own code

    @property
    def inputs(self) -> dict[str, str]:
        """What the record says of the data, and of the checkpoint's files."""
        data = self.dataset.record("data") | (self.ood.record("ood_data") if self.ood else {})
        return data | ({"model_digest": self.model.digest} if self.model.digest else {})


@missing_named()
def prepare(config: RunConfig) -> Prepared:
    """Builds all of a run. Raises UserError where it cannot be built, or a package is not installed."""
    refuse_changed(config.code)
    arithmetic.set_threads(config.train.threads)
    arithmetic.set_arithmetic(config.system)
    changes = ProcessChanges([path for _, path in config.own_code])
    with changes.kept_in_mind():
        return _built(config, changes)


def _built(config: RunConfig, changes: ProcessChanges) -> Prepared:
    torch.manual_seed(config.seed)
    check_metrics(config)
    system = System(config.system)
    ranks = join(config.system, system.device)
    built = BuiltBy()
    dataset = datasets.load(config.dataset)
    built.note("dataset.loader")
    _refuse_other_data(ranks, dataset)
    check_attack(config, dataset)
    ood = load_ood(config, dataset)
    model = models.build(config, dataset)
    built.note("model.builder", draws=config.model.builder is not None)
    if said := woken(model.module) if config.model.builder else "":
        log.warning("%s", said)
    system.before_variant(model.module)
    length, metrics = config.dataset.max_length, config.dataset.metrics
    train, val = (model.examples(split, length) for split in (dataset.train, dataset.val))
    example = None
    if len(train):
        batch = train.batch(torch.arange(min(2, len(train))), EVALUATION).to(torch.device("cpu"))
        refuse_unable(config, model.module, batch, len(dataset.classes))
        example = batch.inputs
    if config.variant.dropout == "packed":  # what it takes is built here, so that no step waits for that
        log.info("packed dropout runs on: %s", backend(system.device))
    modules_made = rates_of(model.module, None)
    replacement = apply_variant(model.module, config.variant, example)
    rates = rates_of(model.module, replacement) | modules_made
    changes.look_again()
    method = apply_method(model.module, config.variant)
    system.prepare(model.module)
    built.note("the model's forward, variant.apply or system.own_parts")
    for line in built.said:
        log.warning("%s", line)
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
    training.watch.rates_chosen, training.watch.rate_of_all = rates, config.variant.p
    # Dropout starts here, whatever building the model drew.
    torch.manual_seed(ranks.seed(_mask_seed(config.seed, config.variant.mask_stream)))
    return Prepared(training, model, dataset, ood, replacement, said, built.said, changes)


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
