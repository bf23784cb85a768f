"""Examines specimens, several at a time, each in a row of its own."""

import logging
import re
import signal
import warnings
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers

from pmexp.process import usable_cores
from pmexp.zoo.examine import examine
from pmexp.zoo.pictures import import_torchvision, of_diffusers, of_timm
from pmexp.zoo.specimen import NoSuchAttention, Specimen
from pmexp.zoo.torch_modules import of_peft, of_torch
from pmexp.zoo.transformers_models import of_transformers

# Those of timm and diffusers are empty where these are not installed.
FAMILIES = (of_transformers, of_torch, of_peft, of_timm, of_diffusers)
SECONDS = 200  # for one specimen, on a busy machine


@dataclass(frozen=True)
class ZooRow:
    """Says what became of one specimen."""

    name: str
    family: str
    attention: str
    modules: int = 0  # exchanged
    functions: int = 0  # modules whose functional dropout or attention is routed
    left: dict[str, int] = field(default_factory=dict)  # how many modules are left alone, by the reason
    packed: float = 1.0  # bytes saved for backward, against stock's
    rebuilt: float = 1.0
    faults: tuple[str, ...] = ()
    missing: str | None = None  # why it was not examined

    @property
    def drops(self) -> bool:
        """Whether dropout was found in it, reached or not."""
        return bool(self.modules or self.functions or self.left)


def swept(specimens: Iterable[Specimen], processes: int | None = None) -> list[ZooRow]:
    """Returns the rows of `specimens` in their order, without attentions that a model does not have."""
    count = processes or usable_cores()
    with ProcessPoolExecutor(count, initializer=_prepare) as pool:
        rows = pool.map(_row_in_time, specimens, chunksize=4)
        return [row for row in rows if row is not None]


def _row_in_time(specimen: Specimen) -> ZooRow | None:
    signal.alarm(SECONDS)
    try:
        return row_of(specimen)
    finally:
        signal.alarm(0)


def row_of(specimen: Specimen) -> ZooRow | None:
    """Returns the row of one specimen, or None where the model does not have that attention."""
    about: dict[str, Any] = {name: getattr(specimen, name) for name in ("name", "family", "attention")}
    try:
        model, inputs = specimen.make()
        examined = examine(model, inputs)
    except NoSuchAttention:
        return None
    except Exception as error:
        return ZooRow(**about, missing=_in_a_line(f"{type(error).__name__}: {error}"))
    stock = max(examined.stock.saved_bytes, 1)
    report = examined.report
    return ZooRow(
        **about,
        modules=len(report.modules),
        functions=len({*report.functions, *report.attention}),
        left=dict(Counter(_without_sizes(reason) for reason in report.left.values())),
        packed=examined.packed.saved_bytes / stock,
        rebuilt=examined.rebuilt.saved_bytes / stock,
        faults=tuple(examined.faults()),
    )


def _prepare() -> None:
    """Readies a process: a specimen takes one core and SECONDS at most, and warns nobody."""
    torch.set_num_threads(1)
    import_torchvision()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    signal.signal(signal.SIGALRM, _too_slow)


def _too_slow(*_: Any) -> None:
    raise TimeoutError(f"takes more than {SECONDS} s")


def _without_sizes(reason: str) -> str:
    return re.sub(r", [\d,]+ elements", "", reason)


def _in_a_line(text: str, longest: int = 160) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else line[:longest].rpartition(" ")[0] + " ..."
