"""``python -m pmexp.runs`` says what became of the runs of an experiment, retries and repairs them."""
