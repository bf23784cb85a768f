"""Holds one of the two trainings, with a random number generator of its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from pmexp.command.chosen_variant import as_given
from pmexp.config import RunConfig
from pmexp.errors import UserError, error_line
from pmexp.measure.out_of_memory import is_out_of_memory
from pmexp.parity.options import SideName, SideOptions
from pmexp.parity.watch import See, Watch
from pmexp.systems.arithmetic import set_arithmetic
from pmexp.training.loop import Metrics
from pmexp.training.outcome import weights_digest
from pmexp.training.prepared import prepare
from pmexp.training.resuming import state_of


class Side:
    """A run as `python -m pmexp.train` prepares it, taken step by step under `see`."""

    def __init__(self, name: SideName, options: SideOptions) -> None:
        """Raises UserError where it cannot be prepared."""
        self.name, self.options = name, options
        self.prepared = self._of_somebody(lambda: prepare(options.config))
        self.refuse_changes()
        self.training = self.prepared.training
        self.module: nn.Module = self.training.module
        self.watch = Watch(self.training)
        self.draws = False  # whether a step has drawn random numbers so far
        self.losses: list[float] = []  # in nats, of each step
        self.gradient_norms: list[float] = []  # before clipping
        self._steps = self.training.steps()
        self._random = self._state()

    @property
    def config(self) -> RunConfig:
        return self.options.config

    @property
    def label(self) -> str:
        """The name of the side for people: its dropout and, unless it is the plain one, its stack."""
        system = self.config.system.name
        return self.options.given if system == "plain" else f"{self.options.given} with system {system}"

    def take(self, see: See) -> Metrics:
        """Takes the next step, hands each of its tensors to `see`, and returns the step's metrics.

        Raises UserError where somebody's code fails.
        """
        self.watch.see = see
        set_arithmetic(self.config.system)  # the other side shares the process
        with self._own_random_numbers():
            before = self._state()
            metrics: Metrics = self._of_somebody(lambda: next(self._steps))[1]
            self.draws |= any(not torch.equal(x, y) for x, y in zip(before, self._state(), strict=True))
        self.losses.append(metrics["train/loss"])
        self.gradient_norms.append(metrics.get("grad/norm", 0.0))  # none where backward updates
        return metrics

    def state(self) -> dict[str, Any]:
        """Returns what the next step begins from, as a checkpoint holds it."""
        with self._own_random_numbers():
            state: dict[str, Any] = state_of(self.training)
        return state

    def refuse_changes(self) -> None:
        """Raises UserError where the side's code has changed the process, which the other side shares."""
        if said := self.prepared.changes.said():
            raise UserError(
                f"{self.name}={self.options.given}: {said} for the whole process, which both sides share, so "
                "that nothing is shown; change the model or its modules alone"
            )

    def weights_digest(self) -> str:
        """Returns the first 16 hexadecimal digits of SHA-256 over the bytes of all parameters."""
        return weights_digest(dict(self.module.named_parameters()))[:16]

    def _of_somebody(self, work: Callable[[], Any]) -> Any:
        """Returns what `work` returns. Raises UserError in the place of its errors where the side has code of
        somebody's own."""
        try:
            return work()
        except UserError as error:
            raise UserError(as_given(self.name, error)) from error
        except (Exception, SystemExit) as error:  # whose exit code would be taken for a verdict
            if not self.config.code or is_out_of_memory(error):
                raise
            step = self.training.progress.step + 1 if hasattr(self, "training") else 0
            raise UserError(
                f"{self.name}={self.options.given}: fails in step {step} of this training "
                f"({error_line(error)})"
            ) from error

    @contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        self._set(self._random)
        yield
        self._random = self._state()

    def _state(self) -> list[torch.Tensor]:
        device = self.training.system.device
        states = [torch.get_rng_state()]
        return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states

    def _set(self, states: list[torch.Tensor]) -> None:
        torch.set_rng_state(states[0])
        for state in states[1:]:
            torch.cuda.set_rng_state(state, self.training.system.device)
