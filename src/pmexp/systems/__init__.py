"""How a step is executed: parts that compose, each with one file; `system.py` puts them together.

The parts know torch, transformers and no configuration: they are measured where there is no more than these.
"""
