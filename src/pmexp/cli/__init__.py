"""The command `pmexp`: one word for everything that `python -m pmexp.<module>` does as well."""
