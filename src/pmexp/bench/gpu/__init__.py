"""`python -m pmexp.bench.gpu`, or `make gpu`: what only a CUDA device can settle, in a bounded time.

Runs from the source tree with torch, transformers, triton and numpy; nothing else is imported here.
"""
