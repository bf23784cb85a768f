"""The first use of native calls on a device compares them with Python's; the device is a driver of our own."""

import itertools
import threading
from typing import Any

import pytest
import torch
from native_driver import Driver, register_both
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from pmexp.packed_dropout import cuda_seeds, native
from pmexp.packed_dropout.native.comparison import same_as_python

CPU, DEVICE = torch.device("cpu"), torch.device("cuda", 3)
KINDS = list(itertools.product((torch.float32, torch.bfloat16), (4096, 4099)))


@pytest.fixture
def kernels(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of all that the comparison launches, each registered."""

    monkeypatch.setattr(native, "_calls", {-1: None})  # Python calls while the two are compared
    for first, (dtype, numel) in zip(itertools.count(10, 2), KINDS, strict=False):
        register_both(driver, itertools.count(first), torch.ones(numel, dtype=dtype), 1)
    return list(range(10, 10 + 2 * len(KINDS)))


def compared() -> bool:
    return same_as_python(CPU, native.loaded_calls().packed_dropout)


def test_every_kernel_is_launched_and_compared(driver: Driver, kernels: list[int]) -> None:
    before = torch.get_rng_state()
    assert compared() and [launch.function for launch in driver.launches] == kernels
    assert torch.equal(torch.get_rng_state(), before)
    for wrong in kernels:
        driver.wrong = wrong
        assert not compared(), wrong


def test_another_advance_of_the_generator_is_noticed(kernels: list[int]) -> None:
    def draws_more(x: Tensor, *options: Any) -> Tensor:
        torch.rand(1, generator=options[-1])
        y: Tensor = native.loaded_calls().packed_dropout(x, *options)
        return y

    def draws_more_afterwards(x: Tensor, *options: Any) -> Tensor:
        y: Tensor = native.loaded_calls().packed_dropout(x, *options)
        torch.rand(1, generator=options[-1])
        return y

    assert not same_as_python(CPU, draws_more)
    assert not same_as_python(CPU, draws_more_afterwards)


def test_other_threads_draw_meanwhile(kernels: list[int]) -> None:
    """What another thread draws from the default generator changes no answer, and is drawn once."""
    torch.manual_seed(5)
    expected = torch.rand(6, dtype=torch.float64).tolist()
    torch.manual_seed(5)
    drawn: list[float] = []

    def while_another_draws(x: Tensor, *options: Any) -> Tensor:
        thread = threading.Thread(target=lambda: drawn.append(torch.rand(1, dtype=torch.float64).item()))
        thread.start()
        thread.join()
        y: Tensor = native.loaded_calls().packed_dropout(x, *options)
        return y

    assert same_as_python(CPU, while_another_draws)
    drawn += torch.rand(6 - len(drawn), dtype=torch.float64).tolist()
    assert drawn == expected


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_is_no_part_of_what_is_around(kernels: list[int], mode: Any) -> None:
    """A checkpoint counts what is saved, and its first run would save more than its second one."""
    seen: list[Tensor] = []
    with mode(), saved_tensors_hooks(lambda t: seen.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
        assert compared()
    assert seen == []


@pytest.mark.parametrize("wrong", [False, True])
def test_a_device_is_asked_once_and_the_record_says_so(
    driver: Driver, kernels: list[int], monkeypatch: pytest.MonkeyPatch, wrong: bool
) -> None:
    asked: list[torch.device] = []

    def ask(device: torch.device, call: Any) -> bool:
        assert native._calls == {-1: None, 3: None}  # Python calls meanwhile
        asked.append(device)
        return same_as_python(CPU, call)

    monkeypatch.setattr(native, "_calls", {-1: None})
    monkeypatch.setattr(native, "_why_python", lambda kind, may_build: None)
    monkeypatch.setattr(native, "same_as_python", ask)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(cuda_seeds, "known_on_host", lambda device: True)
    driver.wrong = kernels[-1] if wrong else None
    said = "calls by Python: native ones differ or fail on this device" if wrong else "native calls"
    assert [native.calls(DEVICE), native.calls(DEVICE)] == [said, said] and asked == [DEVICE]
    assert native._calls == {-1: None, 3: None if wrong else native.loaded_calls()}
    with native.by_python():
        assert native._calls == {-1: None, 3: None}
    assert native._calls == {-1: None, 3: None if wrong else native.loaded_calls()}


def test_a_device_that_native_calls_fail_on_is_served_by_python(
    driver: Driver, kernels: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(device: torch.device, call: Any) -> bool:
        raise RuntimeError("packed dropout: cuLaunchKernel failed with CUDA error 1\nmore")

    monkeypatch.setattr(native, "_why_python", lambda kind, may_build: None)
    monkeypatch.setattr(native, "same_as_python", fail)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(cuda_seeds, "known_on_host", lambda device: True)
    assert native.calls(DEVICE) == "calls by Python: native ones differ or fail on this device"
    assert caplog.messages == [
        "packed dropout: native calls fail on cuda:3: packed dropout: cuLaunchKernel failed with CUDA error 1"
    ]
