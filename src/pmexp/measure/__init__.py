"""Measures what a run costs in memory, time and energy, and describes the machine it ran on."""
