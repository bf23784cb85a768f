"""Changes how a step is executed, by parts that compose; `system.py` is the whole of a run."""
