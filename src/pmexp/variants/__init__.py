"""The dropouts that are compared (`table.py`), the method's rivals among them, and its experiments.

Each file but `replace.py` needs torch alone, as the method does, and `table.py` not even that.
"""
