"""What a run leaves behind in runs/<name>/<run id>/: its one definition. Imports no torch."""
