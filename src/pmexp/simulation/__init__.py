"""The memory of a training step, counted while it runs or predicted without running it."""

from pmexp.simulation.live_bytes import CATEGORIES, LiveBytes, Snapshot
from pmexp.simulation.predict import NOT_MODELLED, Prediction, predict
from pmexp.simulation.step import Batch, peaks_of_training

__all__ = [
    "CATEGORIES",
    "NOT_MODELLED",
    "Batch",
    "LiveBytes",
    "Prediction",
    "Snapshot",
    "peaks_of_training",
    "predict",
]
