"""From what was typed to checked configurations, and from errors to one line and an exit code."""
