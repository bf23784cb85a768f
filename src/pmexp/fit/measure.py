"""Measures, for method=measure, the peak of real steps on the device, each try in processes of its own.

A try trains the model of `model.architecture` for two steps, of which the second counts, on made-up samples
of the full size: it needs neither data nor checkpoint. On CUDA the peak is the allocator's, and a process
gets no more than the budget, so that fragmentation counts as well; what runs out of memory does not fit. On
the CPU it is the peak of live tensors' bytes. Among several processes the one that needs most counts.
"""

from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pmexp.config import RunConfig
from pmexp.fit.search import Probe
from pmexp.fit.skeleton import batch_shapes, skeleton
from pmexp.models.examples import EVALUATION, Batch
from pmexp.simulation import LiveBytes
from pmexp.systems import arithmetic
from pmexp.systems.ranks import Ranks, join
from pmexp.systems.system import System
from pmexp.training.loop import Training
from pmexp.variants.replace import apply_method, apply_variant

_STEPS = 2
_WORD = 5  # a token that is no padding and no other special one in any vocabulary


@dataclass(frozen=True)
class Try:
    """A step that is tried: on each process `accumulate` parts of `batch` samples of `length` tokens."""

    value: int  # that of batch and length which is searched
    config: RunConfig
    batch: int
    length: int
    accumulate: int
    budget_bytes: int


@dataclass(frozen=True)
class _FullSamples:
    """As many samples as asked for, all of the full size."""

    config: RunConfig
    length: int  # in tokens
    samples: int

    def __len__(self) -> int:
        return self.samples

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        shapes = batch_shapes(self.config, len(rows), self.length)
        inputs = {name: _filled(name, *shape) for name, shape in shapes.items()}
        return Batch(inputs, inputs.pop("labels"))


def measure(tried: Try) -> Probe:
    """The peak on this process, one of `system.processes`. Raises whatever a step raises."""
    system = System(tried.config.system)
    ranks = join(tried.config.system, system.device)
    training = _prepared(tried, system, ranks)
    on_cuda = system.device.type == "cuda"
    counter = LiveBytes()
    if not on_cuda:
        counter.follow(training.module, training.engine.optimizer)
    steps = training.steps()
    with nullcontext() if on_cuda else counter:
        for _ in range(_STEPS):
            counter.forget_peaks()
            counter.enter("step")
            if on_cuda:
                torch.cuda.reset_peak_memory_stats(system.device)
            next(steps)
    counted = counter.peaks["step"]
    peak = int(torch.cuda.max_memory_allocated(system.device)) if on_cuda else counted.total
    categories = {} if on_cuda else counted.by_category
    return Probe(tried.value, peak, categories, peak <= tried.budget_bytes)


def _prepared(tried: Try, system: System, ranks: Ranks) -> Training:
    config = tried.config
    arithmetic.set_threads(config.train.threads)
    if system.device.type == "cuda":
        total = torch.cuda.get_device_properties(system.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, tried.budget_bytes / total), system.device)
    torch.manual_seed(config.seed)
    module = skeleton(config, tried.length)
    system.before_variant(module)
    together = tried.batch * tried.accumulate * config.system.processes
    # No step is the last one, so that none evaluates.
    samples = _FullSamples(config, tried.length, together * (_STEPS + 1))
    example = samples.batch(torch.arange(2), EVALUATION).inputs
    replacement = apply_variant(module, config.variant, example)
    method = apply_method(module, config.variant)
    system.prepare(module)
    settings = replace(
        config.train, batch_size=together, accumulate=tried.accumulate, epochs=1, max_steps=None
    )
    training = Training(
        module,
        samples,
        samples,
        settings,
        config.dataset.metrics,
        config.seed,
        system,
        ranks,
        method=method,
    )
    training.replacement = replacement
    return training


def _filled(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if dtype.is_floating_point:
        return torch.rand(shape, dtype=dtype)
    return torch.full(shape, {"input_ids": _WORD, "attention_mask": 1}.get(name, 0), dtype=dtype)
