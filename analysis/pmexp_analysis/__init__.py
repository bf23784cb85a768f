"""From finished runs to a report: `python -m pmexp_analysis <experiment>`.

records (types) -> load, load_mlflow (two sources) -> assemble (one experiment) -> compare, by stats (numbers)
-> tables, headline, plots (words and figures) -> page (content of the files) -> report (arguments and files).
"""
