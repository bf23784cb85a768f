"""The one training loop: a generator of (step, {metric: value}). No logging, no files."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmexp.config import Schedule, Select, TrainConfig
from pmexp.errors import UserError
from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.measure.timing import StepTimer
from pmexp.metrics.task_metrics import TASK_METRICS
from pmexp.systems import System

Metrics = dict[str, float]


@dataclass(frozen=True)
class Examples:
    """An encoded split on the device: inputs and labels, samples first."""

    inputs: dict[str, Tensor]
    labels: Tensor  # (samples,) int64

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, rows: Tensor | slice) -> tuple[dict[str, Tensor], Tensor]:
        return {name: tensor[rows] for name, tensor in self.inputs.items()}, self.labels[rows]


@dataclass
class Progress:
    """All of the loop's own state that a resumed run needs, beside weights, optimizer and RNG."""

    step: int = 0
    best_value: float | None = None
    best_step: int = 0
    evaluations_without_best: int = 0


class Training:
    """AdamW with warm-up and decay, gradient clipping and early stopping."""

    def __init__(
        self,
        module: nn.Module,
        train: Examples,
        val: Examples,
        config: TrainConfig,
        metrics: list[str],
        seed: int,
        system: System,
    ) -> None:
        assert config.batch_size is not None
        assert config.epochs is not None
        assert config.lr is not None
        self.module, self.train, self.val = module, train, val
        self.config, self.metrics, self.seed, self.system = config, metrics, seed, system
        self.batch_size = config.batch_size
        self.steps_per_epoch = len(train) // self.batch_size
        if not self.steps_per_epoch:
            raise UserError(
                f"train.batch_size: {self.batch_size} exceeds the {len(train)} training samples; "
                "choose a smaller one"
            )
        planned = config.epochs * self.steps_per_epoch
        self.total_steps = min(config.max_steps or planned, planned)
        self.optimizer = torch.optim.AdamW(
            module.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._lr_factor)
        self.timer = StepTimer(system.device)
        self.progress = Progress()
        self._order: tuple[int, Tensor] | None = None  # of one epoch
        self.found_best = False  # the evaluation just yielded is the best so far

    def steps(self) -> Iterator[tuple[int, Metrics]]:
        """Trains from `progress` on. Yields after every step, {} where nothing was measured."""
        while self.progress.step < self.total_steps and not self._out_of_patience():
            self.module.train()
            with self.timer.step():
                metrics = self._step(self.progress.step)
            self.progress.step += 1
            step = self.progress.step
            if step % self.steps_per_epoch == 0 or step == self.total_steps:
                metrics |= self._validate()
            yield step, metrics

    def _step(self, index: int) -> Metrics:
        inputs, labels = self.train.rows(self._batch_rows(index))
        log = index == 0 or (index + 1) % self.config.log_every == 0 or index + 1 == self.total_steps
        ledger = SavedForBackward(self.module) if index == 0 else None
        if ledger:
            with ledger:
                loss = self._loss(inputs, labels)
        else:
            loss = self._loss(inputs, labels)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.config.clip_norm)
        lr = self.scheduler.get_last_lr()[0]
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        metrics = ledger.metrics() if ledger else {}
        if log:
            metrics |= {"train/loss": loss.item(), "grad/norm": norm.item(), "train/lr": float(lr)}
        return metrics

    def _loss(self, inputs: dict[str, Tensor], labels: Tensor) -> Tensor:
        with self.system.forward():
            return F.cross_entropy(self.module(**inputs).logits.float(), labels)

    def _batch_rows(self, index: int) -> Tensor:
        """Rows of the batch of step `index`: a function of (seed, epoch, position) and of nothing else."""
        epoch, position = divmod(index, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.train))
            self._order = (epoch, torch.from_numpy(order).to(self.system.device))
        return self._order[1][position * self.batch_size : (position + 1) * self.batch_size]

    def _validate(self) -> Metrics:
        found = {f"val/{name}": value for name, value in self.evaluate(self.val).items()}
        progress = self.progress
        metric = self.metrics[0]
        value = found[f"val/{metric}"]
        value = value if TASK_METRICS[metric].direction == "max" else -value
        self.found_best = progress.best_value is None or value > progress.best_value
        if self.found_best:
            progress.best_value, progress.best_step = value, progress.step
        progress.evaluations_without_best = 0 if self.found_best else progress.evaluations_without_best + 1
        return found | {"progress/epoch": progress.step / self.steps_per_epoch}

    @torch.no_grad()
    def evaluate(self, examples: Examples) -> Metrics:
        """Mean loss and the task's metrics over `examples`, without their split's prefix."""
        self.module.eval()
        logits = []
        for start in range(0, len(examples), self.batch_size):
            inputs, _ = examples.rows(slice(start, start + self.batch_size))
            with self.system.forward():
                logits.append(self.module(**inputs).logits.float())
        every = torch.cat(logits)
        predicted, true = every.argmax(-1).cpu().numpy(), examples.labels.cpu().numpy()
        found = {name: TASK_METRICS[name].compute(predicted, true) for name in self.metrics}
        return {"loss": F.cross_entropy(every, examples.labels).item(), **found}

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs to go on bit for bit; Python's and NumPy's RNGs are unused."""
        cuda = self.system.device.type == "cuda"
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "progress": vars(self.progress),
            "rng": torch.get_rng_state(),
            "device_rng": torch.cuda.get_rng_state(self.system.device) if cuda else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.progress = Progress(**state["progress"])
        torch.set_rng_state(state["rng"])
        if state["device_rng"] is not None:
            torch.cuda.set_rng_state(state["device_rng"], self.system.device)

    def _out_of_patience(self) -> bool:
        patience = self.config.patience
        stops = self.config.select is Select.best and patience is not None
        return stops and self.progress.evaluations_without_best >= (patience or 0)

    def _lr_factor(self, step: int) -> float:
        """Linear warm-up to 1, then the schedule down to 0 at the last step."""
        warmup = math.ceil(self.config.warmup_fraction * self.total_steps)
        if step < warmup:
            return (step + 1) / warmup
        left = (self.total_steps - step) / max(1, self.total_steps - warmup)
        match self.config.schedule:
            case Schedule.linear:
                return left
            case Schedule.cosine:
                return 0.5 * (1 - math.cos(math.pi * left))
            case Schedule.constant:
                return 1.0
