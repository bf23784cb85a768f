"""The kernel profile of a few steps: by torch.profiler, or by NVIDIA's tools around the process."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from pmexp.packed_dropout import native, ops

STEPS = 4  # torch.profiler records all but the first
_STEP = "pmexp step"
_PACKING = ("packed_dropout", "bias_dropout_add", "native_dropout", "pack_bits")
_UNPACKING = ("apply_packed_mask", "scale_packed_mask", "unpack_bits")


class Profile:
    """torch.profiler over STEPS steps.

    Meanwhile the method's ops go through torch's dispatcher, where the profiler sees them; on the CPU that
    adds about 10 us to each.
    """

    def __init__(self, device: torch.device, file: Path) -> None:
        self._device, self._file = device, file
        self._taken = 0
        self._shares: dict[str, float] = {}

    @contextmanager
    def step(self) -> Iterator[None]:
        """Opens a context around one of STEPS steps; the last writes the trace (Chrome's format, gzipped)."""
        if self._taken == 0:
            cuda = [ProfilerActivity.CUDA] * (self._device.type == "cuda")
            schedule = torch.profiler.schedule(wait=0, warmup=1, active=STEPS - 1)
            self._profiler = profile(
                activities=[ProfilerActivity.CPU, *cuda], schedule=schedule, acc_events=True
            )
            self._profiler.start()
        try:
            with _dispatched_ops(), record_function(_STEP):
                yield
                if self._device.type == "cuda":
                    torch.cuda.synchronize(self._device)
        except BaseException:
            self._profiler.stop()
            raise
        self._taken += 1
        if self._taken < STEPS:
            self._profiler.step()
            return
        self._profiler.stop()
        self._profiler.export_chrome_trace(str(self._file))
        self._shares = shares(self._profiler.key_averages(), self._device)

    @property
    def source(self) -> str:
        return str(self._file.name) if self._shares else "not profiled: the run has too few steps"

    def phase(self, name: str) -> AbstractContextManager[Any]:
        """A named range inside a step."""
        return record_function(name) if self._taken < STEPS else nullcontext()

    def metrics(self) -> dict[str, float]:
        return self._shares


def shares(averages: Any, device: torch.device) -> dict[str, float]:
    """Shares of the ops that pack and that unpack: of the steps' time, on CUDA of the time of all kernels."""
    time = {average.key: average for average in averages}
    if device.type == "cuda":
        total = sum(average.self_device_time_total for average in averages if _is_kernel(average))
        spent = {key: average.device_time_total for key, average in time.items()}
    else:
        total = time[_STEP].cpu_time_total
        spent = {key: average.cpu_time_total for key, average in time.items()}

    def share(names: tuple[str, ...]) -> float:
        return float(sum(spent.get(f"pmexp::{name}", 0.0) for name in names) / total)

    return {"profile/packing_share": share(_PACKING), "profile/unpacking_share": share(_UNPACKING)}


def _is_kernel(average: Any) -> bool:
    return average.device_type is DeviceType.CUDA and not average.is_user_annotation


class Nsight:
    """Shows Nsight Systems and Nsight Compute the ranges of a step (NVTX) and which steps to capture."""

    source = "ranges for Nsight"

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._taken = 0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Opens a context around one of STEPS steps; the first starts the capture, the last ends it."""
        if self._taken == 0:
            torch.cuda.synchronize(self._device)
            torch.cuda.profiler.start()
        with torch.cuda.nvtx.range(f"step {self._taken}"):
            yield
            torch.cuda.synchronize(self._device)
        self._taken += 1
        if self._taken == STEPS:
            torch.cuda.profiler.stop()

    def phase(self, name: str) -> AbstractContextManager[Any]:
        """A named range inside a step."""
        return torch.cuda.nvtx.range(name) if self._taken < STEPS else nullcontext()

    def metrics(self) -> dict[str, float]:
        return {}


@contextmanager
def _dispatched_ops() -> Iterator[None]:
    """Has Python send the ops of packed dropout through torch's dispatcher, which records them."""
    direct = ops.operators_for
    with ExitStack() as stack:
        stack.enter_context(native.by_python())
        stack.callback(setattr, ops, "operators_for", direct)
        ops.operators_for = lambda *_: ops
        yield
