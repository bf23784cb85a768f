"""Defines what a run leaves in ``runs/<name>/<run id>/``: written, read and named here alone, without torch.

folder.py         the files of one run, and who may write them
journal.py        writes the lines that a run appends; journal_lines.py reads them
summary.py        the last file that a run writes: its result
failure.py        why a run ended without one
state.py          what became of a run, in one word
plan.py           the runs that an experiment shall have
found.py          all runs of an experiment, whatever state or damage they are in
place.py          whether anything can be written in a place at all
files.py          how small files are written whole, and JSON is read that anybody may have written
"""
