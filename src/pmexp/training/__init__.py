"""Builds, trains, tests and records a run."""
