"""Loads the library that stands for a device into this process, and says what was launched on it."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import torch

from pmexp.bench.host.build import LIBRARY
from pmexp.packed_dropout import cuda_seeds, native
from pmexp.packed_dropout.bit_comparison import BitComparison
from pmexp.packed_dropout.native import kernels

_ON_LAUNCH = ctypes.CFUNCTYPE(
    None, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint), ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
)


class Launch(NamedTuple):
    """What a kernel of packed dropout was launched with."""

    kernel: str
    places: tuple[int, ...]  # grid and block in three dimensions each, and bytes of shared memory
    stream: int | None
    parameters: dict[str, int]


class StandIn:
    """The library, which the linker has loaded before torch (LD_PRELOAD)."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(LIBRARY)
        self._library.stand_in_launches.restype = ctypes.c_long

    def launches(self) -> int:
        """How many kernels, copies and products were launched so far."""
        return int(self._library.stand_in_launches())

    @contextmanager
    def noted(self) -> Iterator[list[Launch]]:
        """Gathers the launches of Triton's kernels inside, in their order."""
        launches: list[Launch] = []
        callback = _ON_LAUNCH(lambda *launch: launches.append(_read(*launch)))
        self._library.stand_in_on_launch(callback)
        try:
            yield launches
        finally:
            self._library.stand_in_on_launch(None)


def _read(name: bytes, places: Any, stream: int | None, addresses: Any) -> Launch:
    passed = kernels._PASSED[name.decode()]
    sizes = [*passed.values(), *kernels._SCRATCH]
    values = [
        int.from_bytes(ctypes.string_at(addresses[place], size), "little", signed=True)
        for place, size in enumerate(sizes)
    ]
    parameters = dict(zip([*passed, "scratch", "scratch2"], values, strict=True))
    return Launch(name.decode(), tuple(places[:7]), stream, parameters)


@contextmanager
def believed() -> Iterator[None]:
    """Has the method take for given what it would else ask the device, which computes nothing here.

    That is: the seeds that torch draws, that native calls do what Python's do, and that what is made again
    is what it stands for.
    """
    equal: Callable[..., bool] = lambda *_: True  # noqa: E731
    with (
        patch.object(cuda_seeds, "_torch_draws_it", equal),
        patch.object(native, "same_as_python", equal),
        patch.object(BitComparison, "compare", _note_equal),
    ):
        yield


def _note_equal(comparison: BitComparison, made: torch.Tensor) -> None:
    if comparison.first is not None:
        comparison.first.note_equal()
