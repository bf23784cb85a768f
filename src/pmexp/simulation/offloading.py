"""Simulates activation_offload.py by its own rules of what stays, with a link that copies nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from pmexp.activation_offload import Shelf


@dataclass(frozen=True)
class _OnHost:
    """Stands for pinned memory, of which the device has nothing."""

    shape: torch.Size
    dtype: torch.dtype


class _Event:
    """Stands for the end of a copy."""


class _Stream:
    def wait_event(self, event: _Event) -> None:
        """Waits for nothing: a simulated copy is over at once."""


@dataclass
class SimulatedLink:
    """Counts the bytes that it would copy, out and back."""

    copied_bytes: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _stream: _Stream = field(default_factory=_Stream)

    @contextmanager
    def offloaded(self) -> Iterator[None]:
        """Opens the context around a forward that offloaded_activations() opens on a device."""
        shelf = Shelf(self)  # type: ignore[arg-type]
        with saved_tensors_hooks(shelf.pack, shelf.unpack):
            yield

    def current_stream(self) -> _Stream:
        return self._stream

    def send(self, there: Tensor) -> tuple[_OnHost, _Event]:
        self.copied_bytes += there.nbytes
        return _OnHost(there.shape, there.dtype), _Event()

    def fetch(self, host: _OnHost, sent: _Event) -> tuple[Tensor, _Event]:
        there = torch.empty(host.shape, dtype=host.dtype)
        self.copied_bytes += there.nbytes
        return there, _Event()
