"""A run: built, trained, tested and recorded."""
