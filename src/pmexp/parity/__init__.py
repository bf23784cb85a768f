"""Certifies whether two dropouts, or two system stacks, train bit for bit alike."""
