"""Watches what the first steps show of somebody's code, which no error tells: a model, a method or a part."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from pmexp.measure.precision import masks_in_graphs
from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.models.examples import Batch
from pmexp.training import loss_scale
from pmexp.training.dropout_rates import Rates, beside, rates_of, resting_in
from pmexp.training.gradients_seen import removing_seen, trained_names
from pmexp.training.inner_rates import InnerRates
from pmexp.training.kept_in_evaluation import weights_watched
from pmexp.training.labels_reached import LabelsReached
from pmexp.training.progress import Progress
from pmexp.training.reseeding import step_watched


class CodeWatch:
    """Keeps what it sees in a training's progress, so that a resumed run has it too, and as news."""

    def __init__(
        self, progress: Progress, module: nn.Module, device: torch.device, inner_rates: InnerRates
    ) -> None:
        self.news: list[str] = []  # what was seen since the last look at it
        self.rates_chosen: Rates = {}  # those of the dropouts, before a variant or a method sets others
        self.rate_of_all: float | None = None  # variant.p
        self.unnamed_masks: list[str] = []  # random numbers of the first step that no report names
        self._progress, self._module, self._device = progress, module, device
        self._inner_rates = inner_rates
        self._has_evaluated = False
        self._reached = LabelsReached()  # in the first step, by a method's own loss

    @contextmanager
    def step(self) -> Iterator[None]:
        """Watches a whole step."""
        progress = self._progress
        if progress.without_gradient is None:
            progress.without_gradient = trained_names(self._module)
            progress.still = [*progress.without_gradient]
        with step_watched(progress, self._module, self._device) as seeding:
            yield
        self._note("reseeded", "; ".join(seeding))
        self._note("labels_left_out", self._reached.said())
        self._reached = LabelsReached()

    def first_forward(self, loss: Tensor) -> None:
        """Looks at the graph that the first forward has left behind its loss."""
        self._note("masks_in_graphs", masks_in_graphs(self._module, loss))

    def first_gradient(self, ledger: SavedForBackward) -> None:
        """Notes at which rates the first step has dropped, and what it drew, by the ledger of its forward."""
        progress = self._progress
        self.unnamed_masks = ledger.unnamed
        progress.dropout_rates = rates_of(self._module, ledger.replacement)
        progress.resting = resting_in(self._module)
        progress.drops = any(0 < rate < 1 for rate in ledger.rates)
        if self.rate_of_all is not None:
            progress.rates_beside = beside(self._module, ledger.rates, self.rate_of_all)

    def backward(self) -> AbstractContextManager[None]:
        """Watches which parameters get a gradient."""
        waiting, still = self._progress.without_gradient or [], self._progress.still or []
        # To look for zeros the host waits for the device: in the first steps alone.
        return removing_seen(self._module, waiting, still if self._compares_steps else [])

    @contextmanager
    def standard_losses(self, model: nn.Module, batch: Batch) -> Iterator[list[float]]:
        """Yields a list that gets the summed standard loss of each forward of `model` inside: in the first
        steps, to be compared with the loss of a method's own, of which the first sees what it leaves out."""
        reached = nullcontext() if self._progress.step else self._reached.watching(model, batch.labels)
        with reached, self._standard_losses(model, batch) as losses:
            yield losses

    def _standard_losses(self, model: nn.Module, batch: Batch) -> AbstractContextManager[list[float]]:
        return loss_scale.standard_losses(model, batch.labels) if self._compares_steps else nullcontext([])

    def own_loss(self, loss: Tensor, standard: list[float], batch: Batch) -> None:
        """Compares the scale of a method's own loss with that of the standard losses of its forwards."""
        told = loss_scale.scales(loss, standard, batch)
        if told is not None:
            before = self._progress.loss_scale
            self._progress.loss_scale = told if before is None else [each for each in before if each in told]

    def optimizer_stepped(self, lr: float) -> None:
        """Looks at the optimizers after a step that was taken at `lr`, before the schedule sets the next."""
        self._note("unscheduled", self._inner_rates.said(lr))

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Watches whether the first evaluation, which is inside, leaves the weights as they were."""
        with weights_watched(self._module, watched=not self._has_evaluated) as changed:
            yield
        self._has_evaluated = True
        self._note("changed_in_evaluation", "; ".join(changed))

    @property
    def _compares_steps(self) -> bool:
        return self._progress.step < loss_scale.STEPS

    def _note(self, name: str, said: str) -> None:
        """Keeps what was just seen under its `name` in the progress, and as news."""
        if said:
            setattr(self._progress, name, said)
            self.news.append(said)
