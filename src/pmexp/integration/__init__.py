"""`python -m pmexp.integration`: what the method needs of each supported model, and what it reaches there."""
