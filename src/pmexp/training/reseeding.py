"""Tells where somebody's code seeds torch's random numbers, or draws none: masks or weights are then the
same in each step, or for each seed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from pmexp.measure.own_methods import own_dropouts
from pmexp.training.progress import Progress

STEPS = 3  # so many are watched


class BuiltBy:
    """Says what the code that builds a run has done to torch's random numbers, which the seed has set."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self._seed, self._state = torch.initial_seed(), torch.get_rng_state()

    def note(self, keys: str, draws: bool = False) -> None:
        """Notes what the code of `keys` did since the last call. `draws`: it makes weights, which random
        numbers of torch's have to be drawn for."""
        seed, state = torch.initial_seed(), torch.get_rng_state()
        if seed != self._seed:
            self.said.append(
                f"{keys}: torch was seeded by {seed} where it had been by {self._seed}, so that the weights "
                "that are drawn then are the same for each seed; leave out torch.manual_seed"
            )
        elif draws and torch.equal(state, self._state):
            self.said.append(
                f"{keys}: no random number of torch's was drawn, so that the seed has no part in the weights"
            )
        self._seed, self._state = seed, state


@contextmanager
def step_watched(progress: Progress, module: nn.Module, device: torch.device) -> Iterator[list[str]]:
    """Yields a list that afterwards says whether one of the first steps, taken inside, has seeded torch anew,
    or has left its random numbers where they were though dropout dropped."""
    said: list[str] = []
    if progress.step >= STEPS or progress.reseeded:
        yield said
        return
    generators, step = _generators(device), progress.step + 1
    seeds, states = [each.initial_seed() for each in generators], [each.get_state() for each in generators]
    yield said
    others = [each.initial_seed() for each in generators if each.initial_seed() not in seeds]
    moved = any(
        not torch.equal(each.get_state(), state) for each, state in zip(generators, states, strict=True)
    )
    if step == 1 and not moved and own_dropouts(module):  # which may have a generator of their own
        progress.drops = False
    if others:
        said.append(
            f"step {step} seeded torch by {others[0]}, so that masks may be the same in each step and for "
            "each seed; leave out torch.manual_seed, or give a torch.Generator to what draws"
        )
    elif progress.drops and not moved:
        said.append(
            f"step {step} left torch's random numbers where they were, though dropout drew: masks are the "
            "same in each step, or nothing drops any more; leave out what seeds torch or sets its state"
        )


def _generators(device: torch.device) -> list[torch.Generator]:
    """The generators that a model on `device` draws from unless it is given others."""
    if device.type != "cuda":
        return [torch.default_generator]
    index = torch.cuda.current_device() if device.index is None else device.index
    return [torch.default_generator, torch.cuda.default_generators[index]]
