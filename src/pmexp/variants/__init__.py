"""Holds the dropouts that are compared (`table.py`): the method's rivals, ablations and uses on other masks.

Each file but `replace.py` needs torch alone, as the method does, and `table.py` not even that.
"""
