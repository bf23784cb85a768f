"""Evaluates a model on a whole split, each rank its share of the samples."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pmexp.metrics.own import task_metric
from pmexp.metrics.task_metrics import Evaluation
from pmexp.models.examples import EVALUATION, Batch, Examples
from pmexp.models.generation import Generation
from pmexp.systems.engines.base import Engine
from pmexp.systems.ranks import Ranks
from pmexp.systems.system import System
from pmexp.training.code_watch import CodeWatch
from pmexp.training.evaluation_shares import EvaluationShare, joined, scored
from pmexp.training.loader import batches_ahead


@dataclass
class Evaluator:
    """Evaluates a model under the weights that it has."""

    engine: Engine
    system: System
    ranks: Ranks
    summed_loss: Callable[[Batch], tuple[Tensor, Tensor]]  # and the logits, fp32; the batch is on the device
    metrics: Sequence[str]
    classes: Sequence[str]  # the names of those that samples or words are of
    generation: Generation | None  # by which a model writes texts
    seed: int
    batch_size: int  # samples of all ranks together
    train: Examples  # what the model is trained on
    workers: int  # that make batches of such examples ahead
    watch: CodeWatch

    def evaluate(self, examples: Examples) -> dict[str, float]:
        """Returns the mean loss and the task's metrics over `examples`, without their split's prefix.

        A model that draws in evaluation (ViLT orders its patches so) draws the same each time, as a metric of
        one's own does, and training goes on with the random numbers that it would have without.
        """
        on_cuda = [self.system.device] if self.system.device.type == "cuda" else []
        with torch.random.fork_rng(on_cuda):
            torch.manual_seed(self.seed)
            evaluation, metrics = self.predict(examples), {}
            if evaluation is not None:
                scores = {name: task_metric(name).compute(evaluation) for name in self.metrics}
                metrics = {"loss": evaluation.loss, **scores}
        return self.ranks.from_first(metrics)

    @torch.no_grad()
    def predict(self, examples: Examples) -> Evaluation | None:
        """Returns what the model says about all of `examples`, in their order, on rank 0; None on the others.

        A rank that gets no row of a small last batch runs a row and drops its answer, since an engine may
        need every rank in every forward.
        """
        self.engine.set_mode(training=False)
        share = EvaluationShare()
        # Others than what is trained on may need the model, as attacked examples do, and no worker has it.
        workers = self.workers if isinstance(examples, type(self.train)) else 0
        with self.watch.evaluation():
            for rows, batch in self.batches(examples, workers):
                on_device = batch.to(self.system.device)
                summed, logits = self.summed_loss(on_device)
                written = self._written(on_device)
                if not len(rows):
                    continue
                share.loss += summed.item()
                share.targets += batch.targets
                if not batch.of_language:
                    share.scores.append(scored(rows, logits.cpu(), batch.labels))
                if written:
                    share.texts += zip(rows.tolist(), written, batch.references, strict=True)
        shares = self.ranks.gather(share)
        return joined(shares, self.classes) if self.ranks.is_first else None

    def batches(self, examples: Examples, workers: int) -> Iterator[tuple[Tensor, Batch]]:
        """Yields the batches of `examples` in their order: this rank's share of the rows, which may be
        none, and the samples of that share, or of one row."""
        chunks = torch.arange(len(examples)).split(self.batch_size)
        shares = [self.ranks.share(chunk) for chunk in chunks]

        def make(number: int) -> list[Batch]:
            rows = shares[number]
            return [examples.batch(rows if len(rows) else chunks[number][:1], EVALUATION)]

        with batches_ahead(make, range(len(chunks)), workers, self.system.device) as batches:
            for rows, (batch,) in zip(shares, batches, strict=True):
                yield rows, batch

    def _written(self, batch: Batch) -> list[str]:
        """The texts that the model writes to the sources of `batch`; none where it has another objective.

        To be called after a forward: FSDP's parameters are whole from there on, and generation calls the
        encoder and the decoder past the module that would gather them.
        """
        if self.generation is None:
            return []
        with self.system.forward():
            return self.generation.texts(batch.inputs, synced=self.ranks.world_size > 1)
