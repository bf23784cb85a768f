"""What a run leaves behind in ``runs/<name>/<run id>/``: written, read and named here alone, without torch.

folder.py    the files of one run, and who may write them
journal.py   the lines that a run appends, and how they are read
summary.py   the last file that a run writes: its result
state.py     what became of a run, in one word
plan.py      the runs that an experiment shall have
found.py     all runs of an experiment, whatever state or damage they are in
"""
