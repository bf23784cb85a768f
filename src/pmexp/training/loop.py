"""Holds the one training loop, a generator of (step, {metric: value}); it logs nothing and writes no file."""

import math
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from pmexp.config import Select, TrainConfig
from pmexp.errors import UserError
from pmexp.measure.instruments import Instruments, NoInstruments
from pmexp.measure.memory_by_category import held
from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.measure.timing import StepTimer
from pmexp.metrics.own import task_metric
from pmexp.models.examples import Batch, Examples
from pmexp.models.generation import Generation
from pmexp.models.objectives import summed_loss
from pmexp.packed_dropout import ReplacementReport
from pmexp.shown import counted
from pmexp.systems.ranks import Ranks
from pmexp.systems.system import System
from pmexp.training.code_watch import CodeWatch
from pmexp.training.evaluating import Evaluator
from pmexp.training.gradients_seen import untrainable
from pmexp.training.inner_rates import InnerRates
from pmexp.training.kept_by_method import KeptByMethod, KeptByNone
from pmexp.training.loader import batches_ahead, ready, workers_for
from pmexp.training.order import epoch_order
from pmexp.training.progress import Progress
from pmexp.training.step_plan import StepPlan
from pmexp.variants.method import Method

Metrics = dict[str, float]


class Training:
    """Trains by AdamW, or a method's own optimizer, with warm-up, decay, clipping and early stopping."""

    def __init__(
        self,
        module: nn.Module,
        train: Examples,
        val: Examples,
        config: TrainConfig,
        metrics: list[str],
        seed: int,
        system: System,
        ranks: Ranks = Ranks(),  # noqa: B008  frozen
        generation: Generation | None = None,
        method: Method | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        """classes: the names of those that samples or words are of."""
        assert config.batch_size is not None
        self.module, self.train, self.val = module, train, val
        self.config, self.metrics, self.seed, self.system = config, metrics, seed, system
        self.ranks, self.generation = ranks, generation
        self.method = method or Method()
        self.batch_size = config.batch_size
        self.plan = StepPlan(config, len(train))
        self.engine = system.engine(ranks, config.clip_norm)
        self.not_updated: list[str] = []  # parameters that train and that no optimizer has
        self.model = self.engine.prepare(module, self._optimizer)  # `module`, or what stands around it
        self.kept = KeptByMethod(method, self.engine, module) if method else KeptByNone()
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.engine.optimizer, self.plan.lr_factor)
        that_pay = workers_for(train, system.device, ranks.world_size)
        self.workers = that_pay if config.workers is None else config.workers  # that make batches ahead
        self.timer = StepTimer(system.device)
        self.step_seconds = 0.0  # how long the last step took, also where the timer leaves it out
        self.instruments: Instruments | NoInstruments = NoInstruments()
        self.replacement: ReplacementReport | None = None  # says what became of the module's dropout
        self.progress = Progress()
        inner_rates = InnerRates(self.engine.optimizer, self.kept.optimizers)
        self.watch = CodeWatch(self.progress, module, system.device, inner_rates)
        self.evaluator = Evaluator(
            engine=self.engine,
            system=system,
            ranks=ranks,
            summed_loss=self.summed_loss,
            metrics=metrics,
            classes=classes,
            generation=generation,
            seed=seed,
            batch_size=config.batch_size // config.accumulate,
            train=train,
            workers=self.workers,
            watch=self.watch,
        )
        self._order: tuple[int, Tensor] | None = None  # an epoch, and the order in which it visits the rows
        self._batches: Iterator[list[Batch]] = iter(())  # each step's, made ahead
        self._agreed = 0  # steps whose waits all ranks know
        self.found_best = False  # the evaluation just yielded is the best so far

    def _optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Makes the optimizer, the method's own if it has one, and notes which parameters it leaves out."""
        assert self.config.lr is not None
        optimizer = self.method.made_optimizer(parameters, self.config.lr, self.config.weight_decay)
        if hasattr(optimizer, "eval") and not self.engine.moves_weights:
            raise UserError(
                f"system.parts: {type(optimizer).__name__} evaluates at other weights than it trains at, "
                f"which {type(self.engine).__name__} cannot; leave its part out, or take ddp"
            )
        updated = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        trained = {name: each for name, each in self.module.named_parameters() if each.requires_grad}
        self.not_updated = [name for name, each in trained.items() if id(each) not in updated]
        if self.not_updated and self.engine.scaler.is_enabled():
            raise UserError(
                f"system.parts: fp16 scales the loss, and {type(optimizer).__name__} leaves out "
                f"{counted(len(self.not_updated), 'parameter')}, whose gradients would stay scaled; take "
                "bf16, or give it all of them"
            )
        if len(self.not_updated) == len(trained) > 0 and not self.engine.moves_weights:
            raise UserError(
                f"system.parts: {type(optimizer).__name__} has none of the parameters that it was given, "
                f"which {type(self.engine).__name__} has put in the place of the model's; make it of those"
            )
        return optimizer

    def steps(self) -> Generator[tuple[int, Metrics], None, None]:
        """Trains from `progress` on. Yields after every step, {} where nothing was measured."""
        ahead = range(self.progress.step, self.plan.last_step)
        with batches_ahead(self.parts, ahead, self.workers, self.system.device) as self._batches:
            while self.progress.step < self.plan.last_step and not self._out_of_patience():
                if self.progress.step % self.plan.steps_per_epoch == 0:
                    self.timer.begin_epoch()
                self.engine.set_mode(training=True)
                began = time.perf_counter()
                with self._measured_step(), self.watch.step():
                    metrics = self._step(self.progress.step)
                self.step_seconds = time.perf_counter() - began
                metrics |= self.instruments.measured()
                self.progress.step += 1
                step = self.progress.step
                if step % self.plan.steps_per_epoch == 0:
                    self.timer.end_epoch()
                if self.plan.evaluations_by(step) > self.plan.evaluations_by(step - 1):
                    with self.timer.pause():
                        metrics |= self._validate()
                yield step, metrics
        self.agree_on_waits()

    def agree_on_waits(self) -> None:
        """Has every rank know the longest wait of any in each step so far: all of them wait for that one."""
        waits = self.timer.data_seconds
        new = torch.tensor(waits[self._agreed :], dtype=torch.float64)
        waits[self._agreed :] = self.ranks.largest(new).tolist()
        self._agreed = len(waits)

    def held(self) -> list[Tensor]:
        """The tensors that this process holds between two steps, as far as its engine shows them.

        The next batch is among them where workers make it: else it is made in the step.
        """
        engine = self.engine
        state = self._held_state()
        return [*engine.held_parameters(), *engine.held_gradients(), *state, *ready(self._batches)]

    def _held_state(self) -> list[Tensor]:
        """What the optimizer, and somebody's own method, keep from step to step."""
        return [*self.engine.held_state(), *self.kept.tensors()]

    def _measured_step(self) -> AbstractContextManager[None]:
        own_samples = self.batch_size // self.ranks.world_size  # operations and energy are this process's too
        number = self.progress.step + 1
        settled = self.progress.optimizer_counted or number == self.plan.last_step
        return self.instruments.step(number, own_samples, self.timer, settled)

    def parts(self, index: int) -> list[Batch]:
        """What this rank runs of the batch of step `index`: a function of (seed, epoch, position)
        alone, so that any process can make it."""
        rows, epoch = self.ranks.share(self._batch_rows(index)), index // self.plan.steps_per_epoch
        return [self.train.batch(chunk, epoch) for chunk in rows.chunk(self.config.accumulate)]

    def _step(self, index: int) -> Metrics:
        is_logged = index == 0 or (index + 1) % self.config.log_every == 0 or index + 1 == self.plan.last_step
        ledger = SavedForBackward(self.module, self.replacement) if index == 0 else None
        with self.timer.data():
            parts = next(self._batches)
        loss = self._gradient(parts, ledger)
        metrics: Metrics = {}
        if ledger:
            held_now = held(parameters=self.engine.held_parameters(), gradients=self.engine.held_gradients())
            metrics = ledger.metrics() | held_now
            self.watch.first_gradient(ledger)
        lr = self.scheduler.get_last_lr()[0]
        with self.instruments.phase("optimizer"):
            norm = self.engine.step()
        if not (self.engine.scaler.is_enabled() and norm is not None and not norm.isfinite()):
            self.watch.optimizer_stepped(float(lr))
        self.scheduler.step()
        if not self.progress.optimizer_counted:
            metrics |= (state := held(optimizer=self._held_state()))
            self.progress.optimizer_counted = bool(state)
        if is_logged:
            loss = self.ranks.sum(loss)
            measured = {} if norm is None else {"grad/norm": norm.item()}
            metrics |= {"train/loss": loss.item(), **measured, "train/lr": float(lr)}
        return metrics

    def _gradient(self, parts: list[Batch], ledger: SavedForBackward | None) -> Tensor:
        """This rank's share of a step's mean loss, and its gradient. The ledger sees the first of `parts`.

        Each part's loss is divided by the targets of the whole batch, so that parts with more of them
        (masked tokens) count for more and the sum is the gradient of one large batch.
        """
        counts = torch.tensor([(part.targets, *part.positions) for part in parts]).sum(0)
        targets, positions, padding = self.ranks.sum(counts).tolist()
        targets = max(1, targets)
        self.progress.positions += positions
        self.progress.padding += padding
        total = torch.zeros((), device=self.system.device)
        for part in parts:
            self.engine.begin_micro_batch(last=part is parts[-1])
            with ledger or nullcontext():
                loss = self._training_loss(part.to(self.system.device)) / targets
            if ledger:
                self.watch.first_forward(loss)
            ledger = None
            with self.instruments.phase("backward"), self.watch.backward():
                self.engine.backward(loss)
            total += loss.detach()
        return total

    def _training_loss(self, batch: Batch) -> Tensor:
        """The loss summed over the batch's targets, by the method's own function if it has one. Raises
        UserError where nothing can be trained by it."""
        loss = self.summed_loss(batch)[0] if self.method.loss is None else self._own_loss(batch)
        if not loss.requires_grad:
            raise untrainable(self.system, self.method)
        return loss

    def _own_loss(self, batch: Batch) -> Tensor:
        """The loss by the method's own function, whose scale the first steps compare with the standard's."""
        phase, watched = self.instruments.phase("forward"), self.watch.standard_losses(self.model, batch)
        with phase, self.system.forward(), self.method.around_forward(), watched as standard:
            loss = self.method.loss_of(self.model, batch.inputs, batch.labels)
        self.watch.own_loss(loss, standard, batch)
        return loss

    def summed_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss summed over the batch's targets, as its objective has it, and the logits in fp32."""
        with self.instruments.phase("forward"), self.system.forward(), self.method.around_forward():
            logits = self.model(**batch.inputs).logits.float()
            return summed_loss(logits, batch.labels), logits

    def _batch_rows(self, index: int) -> Tensor:
        """Rows of the batch of step `index`: a function of (seed, epoch, position) and of nothing else."""
        epoch, position = divmod(index, self.plan.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, epoch_order(self.train, self.seed, epoch, self.batch_size))
        return self._order[1][position * self.batch_size : (position + 1) * self.batch_size]

    def first_whole_batch(self) -> Batch:
        """All that this rank runs of the first step's batch, in one."""
        return self.train.batch(self.ranks.share(self._batch_rows(0)), 0)

    def first_batch(self) -> Batch:
        """What this rank runs first of the first step's batch."""
        return self.parts(0)[0]

    def _validate(self) -> Metrics:
        self.agree_on_waits()
        validated = {f"val/{name}": value for name, value in self.evaluator.evaluate(self.val).items()}
        progress = self.progress
        metric = self.metrics[0]
        value = validated[f"val/{metric}"]
        value = value if task_metric(metric).direction == "max" else -value
        self.found_best = math.isfinite(value) and (
            progress.best_value is None or value > progress.best_value
        )
        if self.found_best:
            progress.best_value, progress.best_step = value, progress.step
        progress.evaluations_without_best = 0 if self.found_best else progress.evaluations_without_best + 1
        if progress.positions:
            validated["progress/padding"] = progress.padding / progress.positions
        return validated | {"progress/epoch": progress.step / self.plan.steps_per_epoch}

    def tokens_per_sample(self, planned: int) -> float:
        """Returns the mean positions of a sample in the steps taken; `planned` for what has no padding."""
        progress = self.progress
        samples = progress.step * self.batch_size
        return progress.positions / samples if progress.positions else planned

    @property
    def selects(self) -> bool:
        """Whether an evaluation has selected weights: none whose score is no finite number does."""
        return self.config.select is Select.best and self.progress.best_value is not None

    @property
    def selected_nothing(self) -> bool:
        """Whether the evaluations should have selected weights, and none could."""
        return self.config.select is Select.best and self.config.has_scores and not self.selects

    def _out_of_patience(self) -> bool:
        patience = self.config.patience
        stops = self.config.select is Select.best and patience is not None
        return stops and self.progress.evaluations_without_best >= (patience or 0)
