"""`python -m pmexp.fit` and `predict` say what fits into a memory budget, by simulation or on the device."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pmexp.fit.own_model import predict

__all__ = ["predict"]


def __getattr__(name: str) -> Any:
    """Imports `predict`, and torch with it, once it is asked for: the command's keys are read without."""
    if name == "predict":
        from pmexp.fit.own_model import predict

        return predict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
