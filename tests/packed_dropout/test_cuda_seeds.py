"""The seeds that CUDA masks take, against torch's own draw of them, call by call. No GPU here: a generator, the
question whether a stream captures, and torch.randint on CUDA are stood in for."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, Self
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from cuda_state import CudaState
from philox_words import four_words
from pmexp.packed_dropout import cuda_rng, cuda_seeds, ops, reference, seeds, torch_rng_record

CUDA = torch.device("cuda", 0)


class Generator(CudaState):
    """A CUDA generator, and torch.randint on CUDA by it."""

    def __init__(self, device: torch.device = CUDA) -> None:
        assert device == CUDA
        super().__init__(seed=2**64 - 3, offset=8)
        self.kernels = 0  # that randint launched

    def manual_seed(self, seed: int) -> Self:
        self.seed = seed
        return self

    def randint(
        self, low: int, high: int, size: tuple[int], *, dtype: torch.dtype, device: Any, generator: Any = None
    ) -> Tensor:
        assert (low, size, dtype, device) == (0, (1,), torch.int64, CUDA)
        generator = generator or self
        words = four_words(generator.seed, generator.offset // 4 + self.extra_calls, 0)
        generator.offset += 4
        self.kernels += 1
        return torch.tensor([(words[0] * 2**32 + words[1]) % high])


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Generator]:
    generator = Generator()
    monkeypatch.setattr(torch, "randint", generator.randint)
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(cuda_rng, "default_generator", lambda _: generator)
    monkeypatch.setattr(cuda_rng, "_record", type(cuda_rng._record)())
    cuda_seeds._torch_draws_it.cache_clear()
    monkeypatch.setattr(cuda_seeds, "_blocks", {})
    yield generator
    cuda_seeds._torch_draws_it.cache_clear()


def next_of_torch(generator: Generator) -> int:
    """Returns what torch.randint would draw now; the generator stays where it is."""
    before = generator.offset, generator.kernels
    drawn = int(torch.randint(0, 2**62, (1,), dtype=torch.int64, device=CUDA))
    generator.offset, generator.kernels = before
    return drawn


@given(seed=st.integers(0, 2**64 - 1), offset=st.integers(0, 2**62 - 1).map(lambda n: 4 * n))
def test_a_seed_is_the_first_two_words_of_a_philox_call(seed: int, offset: int) -> None:
    words = four_words(seed, offset // 4, 0)
    expected = (words[0] * 2**32 + words[1]) % 2**62
    assert cuda_seeds.seed_at(seed, offset) == expected
    assert {cuda_seeds.cached_seed_at(seed, offset) for _ in range(3)} == {expected}


def test_seeds_are_torchs_and_launch_nothing(generator: Generator) -> None:
    seeds.new_seed(CUDA)
    kernels = generator.kernels  # the comparison with torch launched these, once for a device
    assert generator.offset == 12
    for _ in range(20):
        expected, offset = next_of_torch(generator), generator.offset
        seed = seeds.new_seed(CUDA)
        assert (seed.dtype, seed.shape, seed.device.type) == (torch.int64, (1,), "cpu")
        assert (int(seed), generator.offset) == (expected, offset + 4)
    assert generator.kernels == kernels
    assert torch_rng_record() == {}


def test_a_state_set_back_gives_the_same_seeds(generator: Generator) -> None:
    first = [int(seeds.new_seed(CUDA)) for _ in range(5)]
    generator.offset = 8
    assert [int(seeds.new_seed(CUDA)) for _ in range(5)] == first
    generator.offset, generator.seed = 8, 7
    assert not {int(seeds.new_seed(CUDA)) for _ in range(5)} & set(first)


def test_neighbouring_seeds_are_computed_at_once(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_by_one: list[int] = []
    seed_at = cuda_seeds.seed_at
    seeds.new_seed(CUDA)
    monkeypatch.setattr(cuda_seeds, "seed_at", lambda *at: one_by_one.append(0) or seed_at(*at))
    for seed, offset in ((2**64 - 3, 8), (5, 4 * 500), (5, 2**34 - 40), (2**63, 2**60)):
        generator.seed, generator.offset = seed, offset
        for turn in range(100):
            if turn == 50:
                generator.offset = offset + 4  # as a checkpoint sets it back
            assert int(seeds.new_seed(CUDA)) == seed_at(seed, generator.offset - 4)
    assert len(one_by_one) <= 16  # two of a block; these are at most eight blocks


def test_far_offsets_compute_no_neighbours(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds.new_seed(CUDA)
    monkeypatch.setattr(cuda_seeds, "_seeds_of", None)
    for turn in range(1, 200):
        generator.offset = 2**40 * turn
        assert int(seeds.new_seed(CUDA)) == cuda_seeds.seed_at(generator.seed, 2**40 * turn)
    assert len(cuda_seeds._blocks) <= 64


def test_modes_around_see_nothing_of_the_neighbours(generator: Generator) -> None:
    seen: list[Any] = []

    class Looks(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func)
            return func(*args, **(kwargs or {}))

    seeds.new_seed(CUDA)
    generator.seed = 99
    with torch.device("meta"), Looks():
        drawn = [seeds.plain_seed(SimpleNamespace(is_cuda=True, device=CUDA)) for _ in range(5)]
    assert drawn == [cuda_seeds.seed_at(99, 12 + 4 * place) for place in range(5)]
    assert seen == []


def test_threads_never_share_a_seed(generator: Generator) -> None:
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda _: int(seeds.new_seed(CUDA)), range(800)))
    assert len(set(drawn)) == 800


def launches_one_kernel(generator: Generator, draw: Any) -> bool:
    """Whether `draw` has torch draw the seed, which is the one that the host would compute."""
    seeds.new_seed(CUDA)
    expected, kernels = next_of_torch(generator), generator.kernels
    drawn = int(draw())
    return drawn == expected and generator.kernels == kernels + 1


def test_a_captured_graph_draws_on_the_device(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    def captured() -> Tensor:
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        monkeypatch.setattr(cuda_rng, "advance", None)  # which fails while a stream captures
        return seeds.new_seed(CUDA)

    assert launches_one_kernel(generator, captured)


def test_modes_transforms_and_traces_see_the_draw(generator: Generator) -> None:
    def counted() -> Tensor:
        with FlopCounterMode(display=False):
            return seeds.new_seed(CUDA)

    def mapped() -> Tensor:
        seen: list[Tensor] = []
        torch.func.vmap(lambda x: seen.append(seeds.new_seed(CUDA)) or x)(torch.ones(1))
        return seen[0]

    def traced() -> Tensor:
        with mock.patch.object(torch._C, "_get_tracing_state", return_value=True):
            return seeds.new_seed(CUDA)

    for draw in (counted, mapped, traced):
        assert launches_one_kernel(generator, draw)


def test_a_torch_that_draws_otherwise_draws_itself(generator: Generator) -> None:
    generator.extra_calls = 1
    expected = next_of_torch(generator)
    assert int(seeds.new_seed(CUDA)) == expected
    assert generator.offset == 12
    seeds.new_seed(CUDA)
    assert torch_rng_record() == {f"seed by torch.randint: torch {torch.__version__} draws otherwise": 1}


def test_masks_of_neighbouring_offsets_are_independent() -> None:
    x = torch.ones(40_000)
    seeds = [torch.tensor([cuda_seeds.seed_at(1234, 4 * i)]) for i in range(12)]
    kept = torch.stack([ops.packed_dropout(x, seed, 0.5, 1)[0] for seed in seeds]) - 1.0
    correlation = kept @ kept.T / x.numel() - torch.eye(len(seeds))
    assert correlation.abs().max() < 5 / x.numel() ** 0.5


def test_reference_takes_a_seed_of_the_cpu_for_another_device() -> None:
    x, seed = torch.ones(6, 4, device="meta"), torch.tensor([5])
    y, packed = reference.packed_dropout(x, seed, 0.5, 1)
    assert y.is_meta and packed.is_meta and packed.shape == (3,)
    assert reference.seeded_dropout(x, seed, 0.5).is_meta
    assert reference.seeded_dropout(x, 5, 0.5).is_meta
    assert reference.bias_dropout_add(x, x[0], x, seed, 0.5, 1)[0].is_meta
