"""`python -m pmexp.fit` says what fits into a memory budget, by simulation or on the device."""
