"""A mean with its error, as the figures take it."""

Estimate = tuple[float, float] | tuple[float, float, float]
"""(mean, standard deviation or 0), or (mean, low, high) with both ends of an interval, in the metric's own
unit. A mean that is not finite is not drawn."""
