"""Everything computed from an experiment."""
