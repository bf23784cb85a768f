"""How a step is executed: parts that compose, each with one file; `system.py` is the whole of a run."""
