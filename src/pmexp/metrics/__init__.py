"""Defines what a run reports: the catalog of metric names and the task metrics."""
