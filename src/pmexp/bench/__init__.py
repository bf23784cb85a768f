"""Benchmarks the method against nn.Dropout: single ops (`micro`) and whole training steps (`step`)."""
