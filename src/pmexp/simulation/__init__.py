"""Counts the memory of a training step while it runs, or predicts it without running it."""

from pmexp.simulation.live_bytes import CATEGORIES, LiveBytes, Snapshot
from pmexp.simulation.operations import operations
from pmexp.simulation.predict import NOT_MODELLED, Prediction, predict
from pmexp.simulation.sharding import Sharding, sharding_of
from pmexp.simulation.step import peaks_of_training

__all__ = [
    "CATEGORIES",
    "NOT_MODELLED",
    "LiveBytes",
    "Prediction",
    "Sharding",
    "Snapshot",
    "operations",
    "peaks_of_training",
    "predict",
    "sharding_of",
]
