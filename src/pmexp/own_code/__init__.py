"""Finds, identifies and imports code of one's own that a configuration names, such as mypkg.MyDropout.

Composing a run reads the sources and imports nothing (`sources.py`); executing it imports what was named
(`load.py`). Imports no torch.
"""

from pmexp.own_code.load import blamed, called, check_takes, failed, imported, of_own_code
from pmexp.own_code.sources import check_import_path, described, is_import_path, refuse_changed

__all__ = [
    "blamed",
    "called",
    "check_import_path",
    "check_takes",
    "described",
    "failed",
    "imported",
    "is_import_path",
    "of_own_code",
    "refuse_changed",
]
