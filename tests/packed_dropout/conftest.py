"""The Triton interpreter and the library of native calls, one for all tests that want it, and torch's threads."""

import importlib.util
import itertools
from collections.abc import Iterator

import pytest
import torch
from native_driver import Driver, hand_over_the_core, load_driver

from pmexp.packed_dropout import native
from pmexp.packed_dropout.native import build
from triton_interpreter import Interpreter


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def interpreter() -> Iterator[Interpreter]:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    interpreter = Interpreter()
    yield interpreter
    interpreter.close()


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    if reason := build.why_not():
        pytest.skip(reason)
    driver, callback = load_driver(tmp_path_factory.mktemp("driver"))
    driver.library.keep = callback
    if not native.is_loaded():
        torch.ops.load_library(build.library())
    hand_over_the_core()
    return driver


@pytest.fixture
def driver(library: Driver) -> Iterator[Driver]:
    """The driver, with no kernel registered; whatever a test registers it takes away."""
    library.launches.clear()
    library.wrong = None
    yield library
    taken = {(kernel, dtype, bits) for kernel, dtype, bits in library.names.values()}
    for (kernel, dtype, bits), offset, numel in itertools.product(taken, (0, 1), (16, 17)):
        x = torch.ones(numel + 1, dtype=dtype)[offset : numel + offset]
        packed = torch.zeros(2 * numel, dtype=torch.uint8)
        library.add(0, x, packed, torch.empty_like(x), kernel == "_dropout_kernel", bits)
    library.names.clear()
    assert not library.failed, library.failed
