"""A small random projection of parameter updates, equal in every run, so that updates of two runs compare.

The projection S has entries -1, 0 and 1 and 256 rows: every parameter goes with a random sign into one of
256 sums. Since the signs of two parameters are independent, <S a, S b> has the expectation <a, b>, with a
standard deviation of at most about |a| |b| / sqrt(128) (AMS sketch: Alon, Matias and Szegedy, STOC 1996;
with hashed places, Charikar, Chen and Farach-Colton, ICALP 2002). A parameter's signs and places are
hashes of its name and its elements' indices: nothing of the size of the model is stored, and runs whose
parameters have the same names and shapes share S.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pmexp.errors import UserError
from pmexp.measure.tensor_parts import parts_of
from pmexp.shown import class_of

WIDTH = 256
_CHUNK = 1 << 20  # elements at a time: 8 MiB each of a few temporaries
_WRAPPERS = ("module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")


class Updates:
    """The projections of the updates at chosen steps: (rows, 256) float64 on the CPU, and their steps.

    Needs whole parameters in the process: one that is sharded (DTensor) is gathered.
    """

    def __init__(self, module: nn.Module, steps: list[int]) -> None:
        self._module = module
        self._chosen = frozenset(steps)
        self.steps: list[int] = []
        self.rows: list[Tensor] = []

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """A context around step `number`, the first being 1. S is linear, so no copy of the parameters is
        needed: float64 sums leave a difference of 1e-12 of the parameters exact to 1e-3."""
        if number not in self._chosen:
            yield
            return
        before = project(self._module)
        yield
        self.steps.append(number)
        self.rows.append(project(self._module) - before)

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps, "rows": self.rows}

    def restore(self, state: dict[str, Any]) -> None:
        self.steps, self.rows = list(state["steps"]), list(state["rows"])

    def write(self, file: Path) -> None:
        """`steps` (rows,) int64 and `updates` (rows, 256) float32; nothing where no step was chosen."""
        if self.steps:
            updates = torch.stack(self.rows).float().numpy()
            np.savez(file, steps=np.array(self.steps, dtype=np.int64), updates=updates)


@torch.no_grad()
def project(module: nn.Module) -> Tensor:
    """S times the trained parameters of `module`: (256,) float64 on the CPU."""
    total = torch.zeros(WIDTH, dtype=torch.float64)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            plain_name = _plain_name(name)
            total += project_tensor(_values(plain_name, parameter.detach()), plain_name).cpu()
    return total


def _values(name: str, parameter: Any) -> Tensor:
    """The numbers of a parameter, whole. Raises UserError for one of other tensors that does not tell."""
    values: Tensor = parameter
    if hasattr(parameter, "full_tensor"):
        values = parameter.full_tensor()
    elif parts := parts_of(parameter):
        (part, *others) = parts.values()
        if type(parameter).dequantize is not Tensor.dequantize:
            values = parameter.dequantize()
        elif not others and part.shape == parameter.shape:
            values = _values(name, part)
        else:
            raise UserError(
                f"measure.updates: the parameter {name} is {class_of(parameter)}, whose values cannot "
                "be read; type measure.updates=[]"
            )
    return values


def project_tensor(x: Tensor, name: str) -> Tensor:
    """S times the elements of `x`, the parameter called `name`: (256,) float64 on its device."""
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "little")
    flat = x.reshape(-1)
    total = torch.zeros(WIDTH, dtype=torch.float64, device=x.device)
    for start in range(0, flat.numel(), _CHUNK):
        values = flat[start : start + _CHUNK].double()
        values = nn.functional.pad(values, (0, -values.numel() % WIDTH))
        index = torch.arange(start, start + values.numel(), device=x.device)
        signed = (values * (1 - 2 * (_hashed(index, key) & 1))).view(-1, WIDTH)
        # Rows of neighbours, each turned by a random shift: columns are summed in one order, on CUDA too.
        shift = _hashed(index[::WIDTH], ~key)[:, None]
        place = (torch.arange(WIDTH, device=x.device) + shift) & (WIDTH - 1)
        total += signed.gather(1, place).sum(0)
    return total


def _hashed(index: Tensor, key: int) -> Tensor:
    """SplitMix64's finalizer of key + index (Steele, Lea and Flood, OOPSLA 2014), in wrapping int64."""
    z = (index + key) * _signed(0x9E3779B97F4A7C15)
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Shifted to the right with zeros coming in: int64 has the arithmetic shift alone."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


def _plain_name(name: str) -> str:
    """The parameter's name without what wrappers of systems put into it."""
    first, *rest = name.split(".")
    parts = ([] if first in _WRAPPERS else [first]) + [part for part in rest if part not in _WRAPPERS[1:]]
    return ".".join(parts)
