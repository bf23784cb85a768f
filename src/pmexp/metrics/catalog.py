"""Lists every metric's unit, direction and label, once.

The journal, the tracker's sections, the tables and the plots all read them here. Imports no torch.
"""

import math
from dataclasses import dataclass
from typing import Literal

from pmexp.metrics.own import DIRECTION, UNIT
from pmexp.metrics.task_metrics import TASK_METRICS
from pmexp.own_code import is_import_path

MOST_DATA_WAIT = 0.02  # the speed/data_wait_share above which a run's speed is that of its loader
CORE_WAIT = "speed/core_wait_share"  # other work had the cores of the steps
MOST_CORE_WAIT = 0.05  # the CORE_WAIT above which a run's times are those of a loaded machine
# Parts by which CORE_WAIT may lengthen the steps of one side more: in a pair, and in the mean over pairs.
MOST_UNLIKE_LOAD, MOST_UNLIKE_LOADS = 0.05, 0.02

Direction = Literal["min", "max", "none"]


@dataclass(frozen=True)
class Metric:
    """One measured quantity.

    `direction` says which end is better; "none" marks a quantity that is only observed. An `exact` one is
    counted, not sampled: one run has all that there is to know of it.
    """

    name: str
    unit: str
    direction: Direction
    label: str
    exact: bool = False
    range: tuple[float, float] = (-math.inf, math.inf)  # the lowest and the highest that it can be

    @property
    def of_training(self) -> bool:
        """Whether it follows from the whole of a training, or is summed or taken over all of its steps: some
        steps of it have no such value."""
        return self.name.split("/")[0] in ("train", "grad", *_SPLITS) or self.name in _OVER_ALL_STEPS

    @property
    def is_loss_or_score(self) -> bool:
        """Whether it says how well a model does. A gradient's norm, which is infinite where a loss scale was
        too large, does not."""
        return self.name == "train/loss" or self.name.split("/")[0] in _SPLITS


_OVER_ALL_STEPS = {
    "memory/peak_bytes",
    "speed/epoch_s",
    "energy/joules",
    "progress/epoch",
    "progress/padding",
}
_SPLITS = {
    "val": "validation",
    "test": "test",
    "ood": "out-of-distribution",  # the test split of robustness.ood
    "fgsm": "attacked validation",
}
_CATALOG = (
    Metric("train/loss", "nats", "min", "training loss"),
    Metric("train/lr", "1", "none", "learning rate"),
    *(Metric(f"{split}/loss", "nats", "min", f"{word} loss") for split, word in _SPLITS.items()),
    *(
        Metric(f"{split}/{name}", metric.unit, metric.direction, f"{word} {metric.label}", range=metric.range)
        for split, word in _SPLITS.items()
        for name, metric in TASK_METRICS.items()
    ),
    Metric("grad/norm", "1", "none", "gradient norm before clipping"),
    Metric("memory/saved_bytes", "bytes", "min", "saved for backward", exact=True),
    Metric("memory/mask_bytes", "bytes", "min", "dropout masks saved for backward", exact=True),
    Metric(
        "memory/mask_elements",
        "elements",
        "none",
        "elements that dropout is applied to in a step",
        exact=True,
    ),
    Metric("memory/mask_bytes_per_element", "bytes/element", "min", "mask bytes per element", exact=True),
    Metric("memory/parameters_bytes", "bytes", "min", "parameters and buffers", exact=True),
    Metric("memory/gradients_bytes", "bytes", "min", "gradients", exact=True),
    Metric("memory/optimizer_bytes", "bytes", "min", "optimizer state", exact=True),
    Metric(
        "memory/recomputed_products",
        "products",
        "none",
        "dropped operands made again in backward",
        exact=True,
    ),
    Metric(
        "memory/saved_dropped_operands",
        "operands",
        "min",
        "dropped operands saved whole",
        exact=True,
    ),
    Metric("memory/peak_tensor_bytes", "bytes", "min", "peak tensor memory of a step", exact=True),
    Metric("memory/mean_tensor_bytes", "bytes", "min", "mean tensor memory during a step", exact=True),
    Metric("memory/peak_bytes", "bytes", "min", "peak memory of the whole process"),
    Metric("speed/step_ms", "ms", "min", "step time (median)"),
    Metric("speed/step_ms_p10", "ms", "min", "step time (10th percentile)"),
    Metric("speed/step_ms_p90", "ms", "min", "step time (90th percentile)"),
    Metric("speed/data_wait_ms", "ms", "min", "time a step waits for its data (mean)"),
    Metric("speed/data_wait_share", "fraction", "min", "share of the steps' time spent waiting for data"),
    Metric(CORE_WAIT, "fraction", "min", "share of the steps' time spent waiting for a core"),
    Metric("speed/epoch_s", "s", "min", "wall time of an epoch"),
    Metric("speed/samples_per_s", "samples/s", "max", "throughput"),
    Metric("speed/tokens_per_s", "tokens/s", "max", "throughput in tokens"),
    Metric("speed/flops_per_step", "FLOP", "none", "operations of a step", exact=True),
    Metric(
        "speed/recomputed_flops_per_step",
        "FLOP",
        "none",
        "operations of a step that checkpointing repeats",
        exact=True,
    ),
    Metric("speed/tflops_per_s", "TFLOP/s", "max", "operations per second"),
    Metric("speed/mfu", "fraction", "max", "model FLOPs utilization"),
    Metric("inference/ms_per_sample", "ms/sample", "min", "inference time per sample"),
    Metric(
        "inference/peak_tensor_bytes",
        "bytes",
        "min",
        "peak tensor memory of inference",
        exact=True,
    ),
    Metric("kept_graph/first_backward_ms", "ms", "min", "first backward of a kept graph"),
    Metric("kept_graph/second_backward_ms", "ms", "min", "second backward of a kept graph"),
    Metric(
        "kept_graph/peak_tensor_bytes",
        "bytes",
        "min",
        "peak tensor memory of a step that keeps its graph",
        exact=True,
    ),
    Metric("gpu/utilization", "fraction", "none", "share of time in which the GPU ran a kernel"),
    Metric(
        "gpu/memory_bandwidth_utilization",
        "fraction",
        "none",
        "share of time in which the GPU's memory was read or written",
    ),
    Metric("gpu/pcie_received_mb_per_s", "MB/s", "none", "what the GPU received over PCIe"),
    Metric("gpu/pcie_sent_mb_per_s", "MB/s", "none", "what the GPU sent over PCIe"),
    Metric("energy/joules", "J", "min", "energy of the training steps"),
    Metric("energy/joules_per_sample", "J/sample", "min", "energy per sample"),
    Metric("profile/packing_share", "fraction", "min", "share of drawing, applying and packing masks"),
    Metric("profile/unpacking_share", "fraction", "min", "share of unpacking and applying masks"),
    Metric(
        "check/gradient_error",
        "1",
        "min",
        "largest error of dropout's gradient against finite differences",
        exact=True,
    ),
    Metric("progress/steps_total", "steps", "none", "steps planned"),
    Metric(
        "progress/computed_length", "tokens", "none", "tokens per sample that the layers compute", exact=True
    ),
    Metric("progress/epoch", "epochs", "none", "epochs done"),
    Metric("progress/padding", "fraction", "none", "share of padding among the positions of texts computed"),
)
_BY_NAME = {metric.name: metric for metric in _CATALOG}


def metric_of(name: str) -> Metric:
    """Returns the catalog entry of `name`. Raises KeyError, which says what to do, when there is none.

    A score of one's own, such as val/mypkg.my_metric, has no entry and is known by its import path.
    """
    split, _, own = name.partition("/")
    if split in _SPLITS and is_import_path(own):
        return Metric(name, UNIT, DIRECTION, f"{_SPLITS[split]} {own}")
    try:
        return _BY_NAME[name]
    except KeyError:
        raise KeyError(f"metric '{name}' is not in the catalog: add it to pmexp/metrics/catalog.py") from None
