"""Keeps what forward saves in the CPU's memory until backward, by offloaded_activations().

Two streams beside that of the model carry the copies, one out and one back, and nothing makes the host wait.
Forward may save `_WINDOW` bytes more than have arrived in pinned memory; then the device waits for the oldest
copy, and its memory goes back to the stream that computes, which comes behind the copy. So the memory taken
on the device is bounded however far the host is ahead: memory marked by `record_stream` would come back only
where the host sees that a copy has ended. Backward finds the last `_WINDOW` bytes still on the device, and
fetches as many ahead, in the reverse of the order of saving.
"""

import functools
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from pmexp.packed_dropout.saved_masks import Saved, restore, save, span_of

_WINDOW = 2**28  # in bytes, which take a PCIe 4 link about 10 ms
_SMALLEST = 2**16  # in bytes; to copy fewer takes less time than to launch the copy
_ALIGNMENT = 512  # in bytes, as CUDA allocates; the bits of a product may depend on it


@contextmanager
def offloaded_activations(device: torch.device) -> Iterator[None]:
    """Opens a context in which what a forward on `device` saves for backward waits in pinned CPU memory.

    Gradients are the same bit for bit: values, strides and alignment come back. On another device than CUDA
    nothing moves. Backward may run outside the context, again, or in parts.

    - Parameters and their views stay, as do tensors under 64 KiB, those of other devices, and all that are
      not plain strided tensors (sparse, nested, wrappers like DTensor).
    - A tensor that was changed in place is refused in backward, as torch does, or comes back as it was saved,
      where it had left the device by then.
    - Tensors that share a storage are moved once, by whatever views and ops they are saved. A change that
      torch does not count (by `.data`, or a kernel of one's own) between two saves is not seen.
    - A hook that is active on entry is called with what is saved, and what it returns is dropped.

    Raises RuntimeError while a CUDA graph is captured: its replays would not allocate pinned memory.
    """
    if device.type != "cuda":
        yield
        return
    around = torch._C._autograd._top_saved_tensors_default_hooks(False)
    index = torch.cuda.current_device() if device.index is None else device.index
    shelf = Shelf(_link(index), around[0] if around else None)
    with saved_tensors_hooks(shelf.pack, shelf.unpack):
        yield


class Link:
    """Copies between a CUDA device and pinned memory; each copy is over when its event is."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._out, self._back = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def current_stream(self) -> torch.cuda.Stream:
        return torch.cuda.current_stream(self.device)

    def send(self, there: Tensor) -> tuple[Tensor, torch.cuda.Event]:
        """Starts to copy bytes of the device, as the current stream leaves them."""
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError("activations cannot be offloaded while a CUDA graph is captured")
        host = torch.empty(there.shape, dtype=there.dtype, pin_memory=True)
        return host, self._copy(self._out, there, host)

    def fetch(self, host: Tensor, sent: torch.cuda.Event) -> tuple[Tensor, torch.cuda.Event]:
        """Starts to copy them back, into memory of the current stream."""
        there = torch.empty(host.shape, dtype=host.dtype, device=self.device)
        self._back.wait_event(sent)
        return there, self._copy(self._back, host, there)

    def _copy(self, stream: torch.cuda.Stream, source: Tensor, target: Tensor) -> torch.cuda.Event:
        stream.wait_stream(self.current_stream())  # work of this stream may still use the target's memory
        with torch.cuda.stream(stream):
            target.copy_(source, non_blocking=True)
            event: torch.cuda.Event = stream.record_event()
        return event


@functools.cache
def _link(index: int) -> Link:
    return Link(torch.device("cuda", index))


class _Moved:
    """Holds a stretch of a storage: its bytes on the CPU, and on the device as long as they are there."""

    def __init__(self, link: Link, tensor: Tensor, first: int, last: int) -> None:
        storage = tensor.untyped_storage()
        there = torch.empty(0, dtype=torch.uint8, device=tensor.device)
        there.set_(storage, first, (last - first,), (1,))
        self.link, self.bytes = link, there.numel()
        self.storage = weakref.ref(storage)
        self.savers = self.taken = 0  # how many ops saved it, and how often one took it back
        self.there: Tensor | None = there
        self.source: Saved | None = save(tensor)  # it shows a change in place while it is copied
        self.stream = link.current_stream()  # the bytes on the device belong to this stream
        self.fetched: torch.cuda.Event | None = None
        self.host, self.sent = link.send(there)

    def leave(self) -> None:
        """Lets the device's memory go to work behind the copy; bytes that were changed under it stay."""
        self.stream.wait_event(self.sent)
        self.link.current_stream().wait_event(self.sent)
        self.there = None
        if self.source and self.source.tensor._version == self.source.version:
            self.source = None

    def fetch(self) -> None:
        self.there, self.fetched = self.link.fetch(self.host, self.sent)
        self.stream = self.link.current_stream()

    def take(self) -> Tensor:
        """The bytes for the work of the current stream; after the last saver's turn they are its alone.

        Raises RuntimeError where they were changed in place before they had left the device.
        """
        if self.source:
            restore(self.source)
        assert self.there is not None
        there, stream = self.there, self.link.current_stream()
        if self.fetched:
            stream.wait_event(self.fetched)
        if stream != self.stream:
            there.record_stream(stream)
        self.taken += 1
        if self.fetched and self.taken % self.savers == 0:
            self.there = None
        return there

    def __del__(self) -> None:
        """Waits for a copy under way, which would write into memory that has another use by then."""
        if self.there is not None and self.fetched:
            self.stream.wait_event(self.fetched)


@dataclass(frozen=True)
class _View:
    """Stands in autograd for a saved tensor that was moved."""

    moved: _Moved
    place: int  # its number in the order of saving
    dtype: torch.dtype
    offset: int  # in elements from the beginning of what was moved
    size: torch.Size
    stride: tuple[int, ...]


class Shelf:
    """Has the pair of hooks of one forward. It keeps no tensor alive that no op keeps any more."""

    def __init__(
        self,
        link: Link,
        around: Callable[[Tensor], Any] | None = None,
        window: int = _WINDOW,
        smallest: int = _SMALLEST,
    ) -> None:
        self._link, self._around = link, around
        self._window, self._smallest = window, smallest
        self._known: weakref.WeakValueDictionary[Hashable, _Moved] = weakref.WeakValueDictionary()
        self._order: list[weakref.ref[_Moved]] = []  # holds one entry a saved tensor
        # These are still on the device since forward.
        self._leaving: deque[tuple[weakref.ref[_Moved], int]] = deque()
        self._leaving_bytes = 0
        # These were fetched early, for the place that is given.
        self._ahead: weakref.WeakKeyDictionary[_Moved, int] = weakref.WeakKeyDictionary()
        self._backward, self._next = -1, -1  # torch's number of the backward pass, and what to fetch next

    def pack(self, tensor: Tensor) -> _View | Saved:
        if self._around:
            self._around(tensor)
        if not self._may_move(tensor):
            return save(tensor)
        first, last = _stretch(tensor)
        if last - first < self._smallest:
            return save(tensor)
        moved = self._moved(tensor, first, last)
        moved.savers += 1
        self._order.append(weakref.ref(moved))
        size = tensor.element_size()
        offset = int(tensor.storage_offset()) - first // size
        return _View(moved, len(self._order) - 1, tensor.dtype, offset, tensor.size(), tensor.stride())

    def unpack(self, saved: _View | Saved) -> Tensor:
        if isinstance(saved, Saved):
            return restore(saved)
        moved = saved.moved
        self._ahead.pop(moved, None)
        if moved.there is None:
            moved.fetch()  # fetch it before those that come later
        self._fetch_ahead(saved.place)
        there = moved.take()
        offset = saved.offset + there.storage_offset() // saved.dtype.itemsize
        tensor = torch.empty(0, dtype=saved.dtype, device=self._link.device)
        return tensor.set_(there.untyped_storage(), offset, saved.size, saved.stride)

    def _may_move(self, tensor: Tensor) -> bool:
        if tensor.device != self._link.device or isinstance(_base(tensor), nn.Parameter):
            return False
        plain = tensor.layout is torch.strided and not tensor.is_nested and tensor.numel() > 0
        return plain and not (tensor.is_conj() or tensor.is_neg() or is_traceable_wrapper_subclass(tensor))

    def _moved(self, tensor: Tensor, first: int, last: int) -> _Moved:
        storage = tensor.untyped_storage()
        key = storage._cdata, tensor._version, first, last
        known = self._known.get(key)
        if known is not None and known.storage() is storage:
            return known
        moved = self._known[key] = _Moved(self._link, tensor, first, last)
        self._leaving.append((weakref.ref(moved), moved.bytes))
        self._leaving_bytes += moved.bytes
        self._let_go()
        return moved

    def _let_go(self) -> None:
        while self._leaving_bytes > self._window:
            ref, size = self._leaving.popleft()
            self._leaving_bytes -= size
            if (moved := ref()) is not None:
                moved.leave()

    def _fetch_ahead(self, place: int) -> None:
        backward = torch._C._current_graph_task_id()
        if backward < 0:  # somebody looks at what an op has saved
            return
        if backward != self._backward:
            self._backward, self._next = backward, place
        self._next = min(self._next, place - 1)
        waiting = sum(moved.bytes for moved, wanted_at in self._ahead.items() if wanted_at < place)
        while self._next >= 0 and waiting < self._window:
            moved = self._order[self._next]()
            if moved is not None and moved.there is None:
                moved.fetch()
                self._ahead[moved] = self._next
                waiting += moved.bytes
            self._next -= 1


def _base(tensor: Tensor) -> Tensor:
    base = tensor._base if tensor._is_view() else tensor
    assert base is not None
    return base


def _stretch(tensor: Tensor) -> tuple[int, int]:
    """First byte and end of what is moved: the whole storage, where `tensor` reaches over half of it."""
    size, whole = tensor.element_size(), tensor.untyped_storage().nbytes()
    start = int(tensor.storage_offset()) * size
    first, last = start // _ALIGNMENT * _ALIGNMENT, start + span_of(tensor.size(), tensor.stride()) * size
    return (0, whole) if 2 * (last - first) >= whole else (first, last)
