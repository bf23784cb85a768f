"""`python -m pmexp.fit`: what fits into a memory budget, by simulation or on the device."""
