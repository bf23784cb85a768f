"""The fixtures of a browser."""

from chromium import browser, page, seen

__all__ = ["browser", "page", "seen"]
