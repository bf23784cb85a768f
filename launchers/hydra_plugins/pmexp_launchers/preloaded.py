"""Imports what each worker of a sweep needs, for the parent that all of them are forked from.

Workers share the memory of what is imported here for as long as nobody writes to it, and a garbage collection
writes to every object that it looks through.
"""

from contextlib import suppress
from importlib import import_module

from pmexp.lasting_imports import lasting_imports

_MODULES = ("pmexp.training.run", "mlflow", "mlflow.store.tracking.sqlalchemy_store")

with lasting_imports():
    for _module in _MODULES:
        with suppress(ImportError):  # who needs a package that is missing is told so there
            import_module(_module)
