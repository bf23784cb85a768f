"""Says which extra of pmexp brings a package that is not installed.

`pip install pmexp` brings torch, which the method needs; all else comes with an extra. Imports no package.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from pmexp.errors import UserError

# Packages, by the names that imports have. What several extras bring is said to come with the first.
EXTRAS = {
    "train": (
        *("hydra", "antlr4", "omegaconf", "yaml", "orjson", "filelock", "rich", "numpy"),
        *("transformers", "huggingface_hub", "tokenizers", "safetensors", "datasets", "pyarrow"),
    ),
    "images": ("PIL", "sklearn"),
    "mlflow": ("mlflow", "sqlalchemy"),
    "wandb": ("wandb", "google"),
    "tensorboard": ("tensorboard",),
    "report": ("numpy", "scipy", "pandas", "matplotlib", "jinja2", "orjson", "omegaconf", "yaml", "filelock"),
    "slurm": ("submitit",),
    "distributed": ("deepspeed", "accelerate"),
    "lora": ("peft",),
    "translation": ("sacrebleu",),
    "gpu": ("pynvml",),
}


def need(purpose: str, *packages: str) -> None:
    """Raises UserError where one of the packages is not installed. `purpose`: who asks, by the key."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise UserError(
            f"{purpose} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            f"installed; {_brought(_extra_of(missing[0]))}"
        )


@contextmanager
def missing_named(extra: str = "") -> Iterator[None]:
    """Turns the failed import of a package that an extra brings into a UserError. `extra`: the one to name
    where several bring the package."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        name = extra if package in EXTRAS.get(extra, ()) else _extra_of(package)
        if not name:
            raise
        raise UserError(f"{package} is not installed; {_brought(name)}") from None


def _extra_of(package: str) -> str:
    return next((extra for extra, packages in EXTRAS.items() if package in packages), "")


def _brought(extra: str) -> str:
    return f"pip install 'pmexp[{extra}]' brings it"
