"""Takes the whole state of a training between two steps, and has one that is resumed go on from it."""

import random
from typing import Any

import numpy as np
import torch

from pmexp.training.loop import Training
from pmexp.training.progress import Progress
from pmexp.training.unsaved_state import digests_of, resumed_without


def state_of(training: Training) -> dict[str, Any]:
    """Returns everything that a resumed run needs to go on bit for bit, but for what modules of somebody's
    own keep beside it: of that digests. Python's and NumPy's random numbers are theirs, too.

    Whole on rank 0, and every rank has to call it.
    """
    training.agree_on_waits()
    device = training.system.device
    own = {
        "engine": training.engine.state(),
        "rng": torch.get_rng_state(),
        "device_rng": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "instruments": training.instruments.state(),
        "method": training.kept.state(),
        "unsaved": digests_of(training.module),
        "python_rng": random.getstate(),
        "numpy_rng": _numpy_state(),
    }
    return {
        "module": training.engine.weights(),
        "scheduler": training.scheduler.state_dict(),
        "timer": training.timer.state(),
        "progress": dict(vars(training.progress)),
        "ranks": training.ranks.gather(own),
    }


def restore(training: Training, state: dict[str, Any]) -> None:
    """Has `training` go on from what `state_of` returned. Raises UserError where a method's own state is not
    in it."""
    own = state["ranks"][training.ranks.rank]
    training.kept.check(own.get("method"))
    training.engine.load_weights(state["module"])
    training.engine.restore([each["engine"] for each in state["ranks"]])
    training.scheduler.load_state_dict(state["scheduler"])
    training.timer.restore(state["timer"])
    vars(training.progress).update(vars(Progress(**state["progress"])))  # which the parts of it share
    torch.set_rng_state(own["rng"])
    if own["device_rng"] is not None:
        torch.cuda.set_rng_state(own["device_rng"], training.system.device)
    training.instruments.restore(own["instruments"])
    training.kept.restore(own.get("method"))
    lost = resumed_without(training.module, own.get("unsaved", {}))
    training.progress.resumed_without = lost or training.progress.resumed_without  # by an earlier start
    if "numpy_rng" in own:  # which an earlier version did not keep
        random.setstate(own["python_rng"])
        kind, keys, *rest = own["numpy_rng"]
        np.random.set_state((kind, np.array(keys, np.uint32), *rest))


def _numpy_state() -> tuple[Any, ...]:
    """The state of NumPy's global generator in plain types, which is what a checkpoint may hold."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return (kind, np.asarray(keys).tolist(), *rest)
