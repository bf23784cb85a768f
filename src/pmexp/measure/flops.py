"""Counts the floating-point operations of a training step, and the share of the device's peak they reach.

A multiplication and an addition count as two. Matrix products, those of experts and of recurrent layers too,
convolutions and fused attention are counted, those inside autograd.Functions as well, by the formulas of
torch.utils.flop_counter; element-wise work is not, as is usual. Fused causal attention counts as if it did
both halves.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count


def _cpu_attention(query: Any, key: Any, value: Any, *_: Any, out_val: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


def _cpu_attention_backward(
    grad: Any, query: Any, key: Any, value: Any, *_: Any, out_val: Any, **__: Any
) -> int:
    return int(sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape))


def _grouped_products(a: Any, b: Any, *_: Any, out_val: Any, **__: Any) -> int:
    """Counts products of experts: a matrix for each group of rows, or in backward two matrices for each."""
    of_both = a.dim() == b.dim() == 2
    return int(2 * a.numel() * b.shape[-1] if of_both else 2 * out_val.numel() * a.shape[-1])


def _cudnn_layers(input: Any, weights: Any, *_: Any, out_val: Any, **__: Any) -> int:
    return _recurrent(input, weights)


def _onednn_layer(input: Any, *weights: Any, out_val: Any, **_: Any) -> int:
    return _recurrent(input, weights[:2])


def _recurrent(input: Any, weights: Any) -> int:
    """Each row of (..., features), which is a step of a sequence, meets all matrices of the layers."""
    rows = int(input.numel() // input.shape[-1])
    elements = sum(int(each.numel()) for each in weights if each.dim() == 2)
    return 2 * rows * elements


def _twice(forward: Any) -> Any:
    """The count of a backward, which has a product for the weight and one for the input."""
    return lambda *args, out_val, **options: 2 * forward(*args, out_val=out_val)


_aten = torch.ops.aten
_COUNTS: dict[Any, Any] = {
    **flop_registry,  # which lacks the others
    _aten._grouped_mm: _grouped_products,
    _aten._cudnn_rnn: _cudnn_layers,
    _aten._cudnn_rnn_backward: _twice(_cudnn_layers),
    _aten.mkldnn_rnn_layer: _onednn_layer,
    _aten.mkldnn_rnn_layer_backward: _twice(_onednn_layer),
    _aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _cpu_attention_backward,
}


class FlopCounter(TorchDispatchMode):
    """A context around one step. `total` is all that ran, `recomputed` what checkpointing ran again of it.

    It changes no number. It is not for compiled models: torch.compile stands aside where a mode like this is
    active, so the step would be another one, of other memory, and the kernels of the mode would be compiled.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.recomputed = 0
        self.counting = False
        self._modules = 0  # whose forward runs now

    def __enter__(self) -> "FlopCounter":
        hooks = nn.modules.module
        self._hooks = [
            hooks.register_module_forward_pre_hook(lambda *_: self._nested(1)),
            hooks.register_module_forward_hook(lambda *_: self._nested(-1), always_call=True),
        ]
        super().__enter__()
        self.counting = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.counting = False
        super().__exit__(kind, error, trace)
        for hook in self._hooks:
            hook.remove()

    @contextmanager
    def of_update(self) -> Iterator[None]:
        """A context in the step in which an optimizer may run code that it has compiled, which would raise an
        error beside this mode. What is computed there is not seen; what is eager counts as ever."""
        self.__exit__(None, None, None)
        try:
            with _OfUpdate(self):
                yield
        finally:
            self.__enter__()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self.counted(func, args, kwargs or {})

    def counted(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Returns the result of an operator, whose operations are added."""
        result = func(*args, **kwargs)
        count = _COUNTS.get(func.overloadpacket)
        if count is not None:
            self.add(int(count(*args, **kwargs, out_val=result)))
        return result

    def add(self, flops: int) -> None:
        """Counts operations that run now."""
        self.total += flops
        # A module's forward inside a backward: torch.utils.checkpoint makes its activations again.
        self.recomputed += flops * (self._modules > 0 and torch._C._current_graph_task_id() != -1)

    def _nested(self, change: int) -> None:
        self._modules += change


class _OfUpdate(TorchDispatchMode):
    """Counts for a FlopCounter, and does not keep torch.compile from running what it has compiled."""

    def __init__(self, counter: FlopCounter) -> None:
        super().__init__()
        self._counter = counter

    @classmethod
    def is_infra_mode(cls) -> bool:
        return True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self._counter.counted(func, args, kwargs or {})


@dataclass(frozen=True)
class Peak:
    """What a device can do at most, in TFLOP/s, dense, at its boost clock and full power."""

    device: str  # the whole name that CUDA gives it, as a regular expression
    fp32: float  # without tensor cores
    tf32: float | None
    bf16: float | None
    fp16: float  # both 16-bit types with float32 sums
    source: str


_PEAKS = (
    Peak(r"NVIDIA B200", 75, 1125, 2250, 2250, "NVIDIA HGX B200 datasheet, an eighth, dense"),
    Peak(r"NVIDIA (H200|GH200 120GB|GH200 480GB|H100 80GB HBM3|H100 SXM5.*)", 67, 494.7, 989.4, 989.4,
         "NVIDIA H100 and H200 Tensor Core GPU datasheets, SXM, dense"),
    Peak(r"NVIDIA H200 NVL", 60, 417.5, 835.5, 835.5, "NVIDIA H200 Tensor Core GPU datasheet, NVL, dense"),
    Peak(r"NVIDIA H100 NVL", 60, 417.5, 835.5, 835.5, "NVIDIA H100 NVL datasheet, dense"),
    Peak(r"NVIDIA H100 PCIe", 51, 378, 756, 756, "NVIDIA H100 Tensor Core GPU datasheet, PCIe, dense"),
    Peak(r"(NVIDIA )?A100-.*", 19.5, 156, 312, 312, "NVIDIA A100 Tensor Core GPU datasheet, dense"),
    Peak(r"NVIDIA A100 80GB PCIe", 19.5, 156, 312, 312, "NVIDIA A100 Tensor Core GPU datasheet, dense"),
    Peak(r"(Tesla |NVIDIA )?V100-SXM.*", 15.7, None, None, 125, "NVIDIA V100 datasheet, SXM2"),
    Peak(r"(Tesla |NVIDIA )?V100-PCIE.*", 14, None, None, 112, "NVIDIA V100 datasheet, PCIe"),
    Peak(r"NVIDIA L40S", 91.6, 183, 362.1, 362.1, "NVIDIA L40S datasheet, dense"),
    Peak(r"NVIDIA L4", 30.3, 60, 121, 121, "NVIDIA L4 datasheet, dense"),
    Peak(r"(Tesla|NVIDIA) T4", 8.1, None, None, 65, "NVIDIA T4 datasheet"),
    Peak(r"NVIDIA GeForce RTX 4090", 82.6, 82.6, 165.2, 165.2, "NVIDIA Ada architecture whitepaper, dense"),
    Peak(r"NVIDIA GeForce RTX 3090", 35.6, 35.6, 71, 71, "NVIDIA GA102 architecture whitepaper, dense"),
)  # fmt: skip


def peak_tflops(device: str, precision: str) -> tuple[float | None, str]:
    """(TFLOP/s or None, where the figure is from or that there is none), for the run's record.

    Args:
        device: as torch.cuda.get_device_name gives it; a slice of a device (MIG) is unknown.
        precision: of the matrix products: fp32, tf32, bf16 or fp16.
    """
    peak = next((peak for peak in _PEAKS if re.fullmatch(peak.device, device)), None)
    figure = getattr(peak, precision) if peak else None
    if peak is None or figure is None:
        return None, f"no peak known for {device}" + f" in {precision}" * (peak is not None)
    return float(figure), f"{figure} TFLOP/s in {precision}: {peak.source}"


def precision_of_products(autocast: str) -> str:
    """`autocast` (fp32, bf16 or fp16), or tf32 where torch may round float32 to it."""
    return "tf32" if autocast == "fp32" and torch.get_float32_matmul_precision() != "highest" else autocast
