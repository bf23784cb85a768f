"""Chooses, runs and reports what of the study fits into some hours."""
