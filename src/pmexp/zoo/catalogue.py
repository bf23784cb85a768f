"""Lists all specimens of the zoo."""

from collections.abc import Iterator
from itertools import chain

from pmexp.zoo.pictures import of_diffusers, of_timm
from pmexp.zoo.specimen import Specimen
from pmexp.zoo.torch_modules import of_peft, of_torch
from pmexp.zoo.transformers_models import of_transformers


def every_specimen() -> Iterator[Specimen]:
    """Yields those of transformers, torch and peft, and of timm and diffusers where they are installed."""
    yield from chain(of_transformers(), of_torch(), of_peft(), of_timm(), of_diffusers())
