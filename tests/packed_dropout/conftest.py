"""The Triton interpreter, one for all tests that want it."""

import importlib.util
from collections.abc import Iterator

import pytest
from triton_interpreter import Interpreter


@pytest.fixture(scope="session")
def interpreter() -> Iterator[Interpreter]:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    interpreter = Interpreter()
    yield interpreter
    interpreter.close()
