"""What the figures say of each claim, a pure function of the record."""

from typing import Any


def claims(record: dict[str, Any]) -> list[dict[str, str]]:
    """A row a claim: "confirmed", "refuted" or "not settled", and the figures that say so."""
    return []
