"""Predicts, for method=simulate, the peak of a run's step from its configuration alone.

The step runs on CUDA's operators, whatever this machine has, unless system.device=cpu asks for the CPU's. In
a run of several processes it is the peak of one.
"""

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from pmexp.config import INPUTS_OF, SHARDING, Device, Objective, Part, RunConfig
from pmexp.errors import UserError
from pmexp.fit.search import Probe
from pmexp.fit.skeleton import batch_shapes, skeleton
from pmexp.simulation import Prediction, operations, predict, sharding_of
from pmexp.systems.system import System
from pmexp.variants.replace import apply_variant

_UNCOUNTED = frozenset([Part.compile, Part.offload])  # they change no product of a step


def simulate(config: RunConfig, batch: int, length: int, accumulate: int = 1) -> Prediction:
    """The peak of a step of `batch` samples of `length` tokens in each of `accumulate` parts, on one process.

    Raises UserError for system.parts=[offload], whose activations wait elsewhere.
    """
    stack = config.system
    if Part.offload in stack.parts:
        raise UserError(
            "system.parts: offload is not simulated; leave it out, or use method=measure on the device"
        )
    system, prepare = _executed(config)
    return predict(
        lambda: skeleton(config, length),
        batch_shapes(config, batch, length),
        prepare=prepare,
        forward=system.forward,
        like="cpu" if stack.device is Device.cpu else "cuda",
        accumulate=accumulate,
        sharding=sharding_of(stack.sharding and stack.sharding.value, stack.processes, accumulate),
        extrapolate=config.dataset.objective is not Objective.seq2seq,  # which has two lists of layers
    )


def counted_of(config: RunConfig) -> str:
    """Names all that `simulated_operations` of a sample goes by, but for the variant, whose dropout has no
    products: two runs with one name have as many."""
    data, system = config.dataset, config.system
    parts = [part for part in system.parts if part not in _UNCOUNTED and part not in SHARDING]
    inputs = (INPUTS_OF[data.kind], data.objective, data.max_length, data.max_target_length)
    return repr((config.model, inputs, parts, system.own_parts))


def simulated_operations(config: RunConfig, batch: int, length: int) -> int:
    """Floating-point operations of a step of `batch` samples of `length` tokens on one process. Those of
    compiled layers, and with offloaded activations, are the same ones."""
    counted = [part for part in config.system.parts if part not in _UNCOUNTED]
    system, prepare = _executed(replace(config, system=replace(config.system, parts=counted)))
    return operations(
        lambda: skeleton(config, length), batch_shapes(config, batch, length), prepare, system.forward
    )


def _executed(config: RunConfig) -> tuple[System, Callable[[nn.Module], None]]:
    """The system of one process of the run, on fake tensors, and what it and the variant do to the model.

    Raises UserError for a method of one's own, which may train by other means than are simulated.
    """
    if config.variant.apply:
        raise UserError(
            f"variant.apply: {config.variant.apply} is a method of your own, which is not simulated; use "
            "method=measure on the device"
        )
    parts = [part for part in config.system.parts if part not in SHARDING]
    system = System(replace(config.system, device=Device.cpu, parts=parts, processes=1))

    def prepare(module: nn.Module) -> None:
        system.before_variant(module)
        apply_variant(module, config.variant)
        for part in system.parts:  # and no move to a device, where the module is already
            part.prepare(module)

    return system, prepare


def probe_of(value: int, prediction: Prediction, budget_bytes: int) -> Probe:
    """Returns what a simulated step with `value` samples or tokens says about the budget, in bytes."""
    simulated = prediction.simulated_layers
    note = f"peak in {prediction.phase}"
    if len(simulated) > 1:
        counts = " and ".join(map(str, simulated))
        note += f"; {counts} layers simulated, {prediction.layers} extrapolated"
    return Probe(
        value,
        prediction.peak_bytes,
        prediction.peak.by_category,
        prediction.peak_bytes <= budget_bytes,
        note,
    )
