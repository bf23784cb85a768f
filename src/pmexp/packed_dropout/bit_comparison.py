"""Compares a dropped tensor that was made again with the one that it stands for, by checksums of their bits.

A change of memory that takes no version (by `.data`, by a kernel of one's own) shows in no node of autograd's
graph and in no counter. So until a model's first backward its forwards note a checksum of each dropped tensor
that is not saved, and backward compares it with that of what it made again.
"""

import os
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from pmexp.packed_dropout.report import ReplacementReport

ENVIRONMENT_VARIABLE = "PMEXP_CHECK_REBUILT"
_ROW = 512  # bytes


def compares_always() -> bool:
    """Whether all forwards are compared. Raises RuntimeError for an unknown choice."""
    choice = os.environ.get(ENVIRONMENT_VARIABLE, "0")
    if choice not in ("0", "1"):
        raise RuntimeError(f"{ENVIRONMENT_VARIABLE}={choice} is unknown; choose 0 or 1")
    return choice == "1"


@dataclass
class FirstBackward:
    """Has a model's forwards compare what their backward makes again, until one has done so.

    report: takes how many tensors were equal.
    """

    report: ReplacementReport
    is_over: bool = False

    def note_equal(self) -> None:
        self.is_over = True
        self.report.rebuilt_equal += 1


@dataclass(slots=True, eq=False)
class BitComparison:
    """Holds the checksum of a dropped tensor that is not saved, (2,) int64.

    first: takes note where what was made again is equal; None where the environment alone has it compared.
    """

    checksum: Tensor
    first: FirstBackward | None

    @classmethod
    def with_what(cls, dropped: Tensor, first: FirstBackward | None) -> "BitComparison | None":
        """Returns the comparison with `dropped`; None where that has no values, or not in its own memory."""
        if type(dropped) is not Tensor or dropped.is_meta or not torch._C._has_storage(dropped):
            return None
        return cls(checksum_of(dropped), first)

    def compare(self, made: Tensor) -> None:
        """Raises RuntimeError unless `made` has the same bits in the same places."""
        if not torch.equal(self.checksum, checksum_of(made)):
            raise RuntimeError(
                f"recompute=True made a dropped tensor ({made.dtype}, shape {tuple(made.shape)}) again with "
                "other values: it, or what it was made of, was changed where autograd does not see it (by "
                ".data or a kernel of one's own), or hooks around the forward gave back other values than "
                "they took (a checkpoint with preserve_rng_state=False, a lossy compression); change a copy "
                "of it, have the hooks give back the same, or give its dropout recompute=False"
            )
        if self.first is not None:
            self.first.note_equal()


def checksum_of(tensor: Tensor) -> Tensor:
    """Sums of the 64-bit words of a tensor's elements by rows and by columns, weighted by their places."""
    flat = tensor.detach().contiguous().view(-1).view(torch.uint8)
    missing = -flat.numel() % _ROW
    words = (pad(flat, (0, missing)) if missing else flat).view(torch.int64).view(-1, _ROW // 8)
    return torch.stack([_by_place(sums) for sums in (words.sum(0), words.sum(1))])


def _by_place(sums: Tensor) -> Tensor:
    return (sums * torch.arange(1, 1 + sums.numel(), device=sums.device)).sum()
