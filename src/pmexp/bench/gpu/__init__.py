"""`python -m pmexp.bench.gpu`, or `make gpu`: memory and speed of BERT on a CUDA device, in a bounded time.

Runs from the source tree with torch, transformers, triton and numpy; nothing else is imported here.
"""
