"""Turns what was typed into checked configurations, and errors of Hydra into one line."""
