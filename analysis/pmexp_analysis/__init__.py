"""From finished runs to a report: `python -m pmexp_analysis <experiment>`.

`sources` reads run folders or MLflow into one Experiment, `numbers` compares its variants, `criteria` judges
the protocol, `figures` chooses what `plots` draws, `pages` words the result, and report.py writes the files.
"""
