"""method=simulate: the peak of a run's step from its configuration alone.

On the operators of CUDA, whatever this machine has, unless system.device=cpu asks for the CPU's.
"""

from dataclasses import replace

from torch import nn

from pmexp import variants
from pmexp.config import Device, RunConfig
from pmexp.fit.search import Probe
from pmexp.fit.skeleton import batch_shapes, skeleton
from pmexp.simulation import Prediction, predict
from pmexp.systems import System


def simulate(config: RunConfig, batch: int, length: int, accumulate: int = 1) -> Prediction:
    """The peak of a step of `batch` samples of `length` tokens."""
    system = System(replace(config.system, device=Device.cpu))

    def prepare(module: nn.Module) -> None:
        variants.apply(module, config.variant)
        for part in system.parts:  # and no move to a device, where the module is already
            part.prepare(module)

    return predict(
        lambda: skeleton(config, length),
        batch_shapes(config, batch, length),
        prepare=prepare,
        forward=system.forward,
        like="cpu" if config.system.device is Device.cpu else "cuda",
        accumulate=accumulate,
    )


def probe_of(value: int, prediction: Prediction, budget_bytes: int) -> Probe:
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
