"""Mirrors a run's journal to trackers. Imports no torch, and a tracker's package only when one is opened."""
