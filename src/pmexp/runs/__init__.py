"""``python -m pmexp.runs``: what became of the runs of an experiment, and what can be done about it."""
