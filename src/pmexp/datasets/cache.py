"""Where fetched and generated data is kept."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """$PMEXP_CACHE, or ~/.cache/pmexp."""
    return Path(os.environ.get("PMEXP_CACHE") or Path.home() / ".cache" / "pmexp")
