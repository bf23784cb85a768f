"""Draws the seeds of Philox masks from torch's generators."""

import torch
from torch import Tensor

from pmexp.packed_dropout import cuda_seeds, partitioning
from pmexp.packed_dropout.options import Rng


def new_seed(device: torch.device) -> Tensor:
    """One int64 drawn from torch's default generator of `device`: all the randomness of one Philox mask.

    For a CUDA device it lies on the CPU where the host knows it, which spares a launch.
    """
    if torch.compiler.is_compiling():
        return partitioning.draw_seed(cuda_seeds.BELOW, device)
    if device.type == "cuda" and cuda_seeds.known_on_host(device):
        return seed_as_tensor(cuda_seeds.draw(device))
    return _seed_of_torch(device)


def seed_for(input: Tensor, rng: Rng) -> Tensor | None:
    """The seed of a mask; None for rng="torch", whose masks take many draws of torch's generator."""
    return new_seed(input.device) if rng == "philox" else None


def plain_seed(input: Tensor) -> Tensor | int:
    """new_seed() for an input with a backend_of_plain: a number where the host knows it, sparing a tensor."""
    if input.is_cuda and cuda_seeds.known_on_host(input.device):
        return cuda_seeds.draw(input.device)
    return _seed_of_torch(input.device)


def seed_as_tensor(seed: Tensor | int) -> Tensor:
    """Returns a number as the (1,) int64 on the CPU that operators take."""
    return torch.full((1,), seed, dtype=torch.int64, device="cpu") if isinstance(seed, int) else seed


def _seed_of_torch(device: torch.device) -> Tensor:
    return torch.randint(0, cuda_seeds.BELOW, (1,), dtype=torch.int64, device=device)
