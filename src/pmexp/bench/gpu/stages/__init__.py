"""Holds what `make gpu` measures, a module a stage, each with `measure(bench)`."""
