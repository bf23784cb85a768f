"""Imports what each worker of a sweep needs, for the parent that all of them are forked from."""

from contextlib import suppress
from importlib import import_module

from pmexp.lasting_imports import lasting_imports

with lasting_imports():  # so that workers share its memory: a collection would write to each object
    for _module in ("pmexp.training.run", "mlflow", "mlflow.store.tracking.sqlalchemy_store"):
        with suppress(ImportError):  # who needs a package that is missing is told so there
            import_module(_module)
