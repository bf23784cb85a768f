"""Defines a specimen: a class of models under one attention, and how one of them is made with its inputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

Made = tuple[nn.Module, dict[str, Any]]  # a model, and the arguments of its forward by name


@dataclass(frozen=True)
class Specimen:
    """One class of models under one attention; `make` may raise where it cannot be had."""

    name: str
    family: str  # the library that has it
    attention: str  # empty where there is no choice
    make: Callable[[], Made]


class NoSuchAttention(Exception):
    """Says that a model has no attention of that name, so that there is nothing to examine."""
