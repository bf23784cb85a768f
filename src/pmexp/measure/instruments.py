"""Holds all instruments of a run but the ledger of saved bytes, and says when each of them looks.

    step, counted from this process's first    what
    0                                          the ledger (in the loop)
    the run's first with an optimizer's state  bytes of tensors are counted: as a rule the run's second
    the run's next one, from its second on     operations are counted, unless layers are compiled
    0 .. WARMUP_STEPS - 1                      warm-up, the allocator's history
    the next profile.STEPS                     the profile, where it is asked for
    the others                                 are timed, and nothing but timed

Updates are projected before and after the chosen steps, and energy is read there, outside the timed span.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pmexp.config import MeasureConfig
from pmexp.errors import UserError
from pmexp.measure.energy import Energy
from pmexp.measure.flops import FlopCounter, peak_tflops, precision_of_products
from pmexp.measure.out_of_memory import MemoryHistory
from pmexp.measure.precision import compiled_parts
from pmexp.measure.profile import STEPS, Nsight, Profile
from pmexp.measure.tensor_bytes import TensorBytes, TensorMemory
from pmexp.measure.timing import WARMUP_STEPS, StepTimer
from pmexp.measure.updates import Updates
from pmexp.measure.utilization import PCIE, UTILIZATION, SampledRates

TRACE, UPDATES = "trace.json.gz", "updates.npz"


class Instruments:
    """Measures the steps of a run by the instruments that its configuration asks for."""

    def __init__(
        self,
        config: MeasureConfig,
        module: nn.Module,
        device: torch.device,
        precision: str,
        artifacts: Path | None,
        memory: TensorMemory,
        held: Callable[[], Sequence[Tensor]],
    ) -> None:
        """Writes nothing, and records no history, before the first step.

        Args:
            precision: of autocast: fp32, bf16 or fp16.
            artifacts: the folder for the trace, the snapshot and the updates. None writes nothing: of
                several processes the first one does, and the others take part in what is collective.
            held: gives the tensors that are there between two steps.
        """
        if config.nsight and device.type != "cuda":
            raise UserError(f"measure.nsight: there is nothing to trace on {device.type}; set it to false")
        self._config, self._device, self._precision, self._artifacts = config, device, precision, artifacts
        self._module = module
        self._taken = 0
        self._flops: FlopCounter | None = None
        self._memory, self._held = memory, held
        self._tensors: TensorBytes | None = None  # what the step just taken has needed
        self._has_tensors = False  # whether the bytes of tensors of some step are on record
        self._rates = {
            name: SampledRates(device, rates)
            for name, rates in (("utilization", UTILIZATION), ("pcie", PCIE))
        }
        self._updates = Updates(module, config.updates)
        self._energy = Energy(device) if config.energy else None
        self._history = MemoryHistory(device) if config.snapshot else None
        self._profile: Profile | Nsight | None = None
        if config.profile and artifacts:
            self._profile = Profile(device, artifacts / TRACE)
        elif config.nsight:
            self._profile = Nsight(device)

    @contextmanager
    def step(self, number: int, samples: int, timer: StepTimer, settled: bool) -> Iterator[None]:
        """A context around step `number` of the run, the first being 1, of so many samples.

        settled: the step holds what later ones hold, or there is no later one.
        """
        self._switch_history()
        is_warm = self._taken >= WARMUP_STEPS
        with ExitStack() as stack:
            stack.enter_context(self._updates.step(number))
            if self._energy:
                stack.enter_context(self._energy.step(samples))
            if self._profile and is_warm and self._taken < WARMUP_STEPS + STEPS:
                stack.enter_context(self._profile.step())
            elif settled and not self._has_tensors:
                if not is_warm:  # a step of the warm-up: its time is not used
                    stack.enter_context(timer.step())
                self._tensors = stack.enter_context(self._memory.block(self._held()))
                self._has_tensors = True
            else:
                stack.enter_context(timer.step())
                if is_warm:
                    for rates in self._rates.values():
                        stack.enter_context(rates.timed_step())
            if self._counts_flops() and number > 1 and not (self._flops or self._tensors):
                self._flops = stack.enter_context(FlopCounter())  # whose mode would add to the tensors' bytes
            yield
        self._taken += 1

    def measured(self) -> dict[str, float]:
        """Metrics of the step just taken alone: the bytes of its tensors, where they were counted."""
        if self._tensors is None:
            return {}
        taken, self._tensors = self._tensors, None
        return {"memory/peak_tensor_bytes": float(taken.peak), "memory/mean_tensor_bytes": taken.mean}

    def phase(self, name: str) -> AbstractContextManager[Any]:
        """A context around a part of a step (forward, backward, optimizer), for the profile."""
        if name == "optimizer" and self._flops and self._flops.counting:
            return self._flops.of_update()
        return self._profile.phase(name) if self._profile else nullcontext()

    def finish(self, step_ms: float | None) -> dict[str, float]:
        """Writes what goes into files and returns the metrics of all instruments. `step_ms`: the median,
        where known."""
        if self._artifacts:
            self._updates.write(self._artifacts / UPDATES)
        metrics: dict[str, float] = {}
        if self._energy:
            self._energy.close()
            metrics |= self._energy.metrics()
        if self._profile:
            metrics |= self._profile.metrics()
        for rates in self._rates.values():
            rates.close()
            metrics |= rates.metrics()
        return self._flops_metrics(step_ms) | metrics

    def record(self) -> dict[str, str]:
        """How each quantity was measured, or why it was not, for the run's record."""
        sources = {f"{name}_source": rates.source for name, rates in self._rates.items()}
        record = {"tensor_bytes": self._memory.source} | sources
        if self._counts_flops():
            record["peak_flops"] = self._peak()[1]
        elif self._config.flops:
            record["flops"] = "not counted: the step would run uncompiled; the stack without compile has them"
        if self._energy:
            record["energy_source"] = self._energy.source
        if self._profile:
            record["profile"] = self._profile.source
        return record

    def snapshot(self) -> Path | None:
        """Writes the snapshot of a run that is out of memory: its file, None where there can be none."""
        return self._history.dump(self._artifacts) if self._history and self._artifacts else None

    def state(self) -> dict[str, Any]:
        """What a resumed run goes on from."""
        energy = (self._energy.joules, self._energy.samples) if self._energy else (0.0, 0)
        flops = (self._flops.total, self._flops.recomputed) if self._flops else None
        return {
            "updates": self._updates.state(),
            "energy": energy,
            "flops": flops,
            "has_tensors": self._has_tensors,
            **{name: rates.state() for name, rates in self._rates.items()},
        }

    def restore(self, state: dict[str, Any] | None) -> None:
        """Goes on from what `state` returned; None is of a training that nobody recorded."""
        if state is None:
            return
        self._updates.restore(state["updates"])
        self._has_tensors = state.get("has_tensors", False)  # older checkpoints have neither this nor rates
        for name, rates in self._rates.items():
            rates.restore(state.get(name, rates.state()))
        if self._energy:
            self._energy.joules, self._energy.samples = state["energy"]
        if state["flops"]:
            self._flops = FlopCounter()
            self._flops.total, self._flops.recomputed = state["flops"]

    def _counts_flops(self) -> bool:
        return self._config.flops and not compiled_parts(self._module)

    def _switch_history(self) -> None:
        if self._history and self._taken == 0:
            self._history.start()
        elif self._history and self._taken == WARMUP_STEPS:
            self._history.stop()

    def _flops_metrics(self, step_ms: float | None) -> dict[str, float]:
        """Includes MFU as in PaLM (Chowdhery et al., 2022), in which recomputed operations do not count."""
        if self._flops is None:
            return {}
        metrics = {"speed/flops_per_step": float(self._flops.total)}
        if self._flops.recomputed:
            metrics["speed/recomputed_flops_per_step"] = float(self._flops.recomputed)
        if step_ms is not None:
            metrics["speed/tflops_per_s"] = self._flops.total / step_ms / 1e9
            peak, _ = self._peak()
            if peak is not None:
                useful = self._flops.total - self._flops.recomputed
                metrics["speed/mfu"] = useful / step_ms / 1e9 / peak
        return metrics

    def _peak(self) -> tuple[float | None, str]:
        cuda = self._device.type == "cuda"
        name = torch.cuda.get_device_name(self._device) if cuda else self._device.type
        return peak_tflops(name, precision_of_products(self._precision))


class NoInstruments:
    """The instruments of a training that nobody records: its steps are timed, and that is all."""

    def step(
        self, number: int, samples: int, timer: StepTimer, settled: bool
    ) -> AbstractContextManager[None]:
        return timer.step()

    def measured(self) -> dict[str, float]:
        return {}

    def phase(self, name: str) -> AbstractContextManager[Any]:
        return nullcontext()

    def finish(self, step_ms: float | None) -> dict[str, float]:
        return {}

    def record(self) -> dict[str, str]:
        return {}

    def snapshot(self) -> None:
        return None

    def state(self) -> None:
        return None

    def restore(self, state: dict[str, Any] | None) -> None: ...
