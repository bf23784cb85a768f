"""Workers change no bit of a batch, say what went wrong in a line, and end with the run however it ends."""

import os
import resource
import signal
import time
from collections.abc import Callable
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from pmexp import process
from pmexp.datasets.pictures import Pictures
from pmexp.errors import MachineError, UserError
from pmexp.models.examples import Batch, CausalTokens, Examples, MaskedTokens, PictureExamples, TensorExamples
from pmexp.process import STOP_SIGNALS
from pmexp.training.loader import Make, batches_ahead, ready, workers_for

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> PictureExamples:
    """Twelve crops of a photograph, as JPEG."""
    folder = tmp_path_factory.mktemp("pictures")
    whole = Image.fromarray(load_sample_images().images[0])
    names = [str(folder / f"{i}.jpg") for i in range(12)]
    for i, name in enumerate(names):
        whole.crop((20 * i, 10 * i, 20 * i + 90, 10 * i + 70)).save(name)
    return PictureExamples(Pictures(names), torch.arange(12) % 2, 32, seed=3)


def of(examples: Examples, epoch: int = 1) -> Make:
    """Makes two parts of three rows."""

    def make(number: int) -> list[Batch]:
        rows = (torch.arange(6) + 5 * number) % len(examples)
        return [examples.batch(chunk, epoch) for chunk in rows.chunk(2)]

    return make


def taken(make: Make, numbers: range, workers: int) -> list[Batch]:
    with batches_ahead(make, numbers, workers, CPU) as batches:
        return [part for parts in batches for part in parts]


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        a.inputs.keys() == b.inputs.keys()
        and all(torch.equal(a.inputs[name], b.inputs[name]) for name in a.inputs)
        and torch.equal(a.labels, b.labels)
        and a.references == b.references
        for a, b in zip(one, other, strict=True)
    )


def loader_workers() -> list[BaseProcess]:
    """The living ones: other tests of this process have helpers of another kind."""
    return [child for child in active_children() if child.daemon and type(child).__name__ == "ForkProcess"]


@given(workers=st.integers(1, 3), start=st.integers(0, 5))
@settings(max_examples=4, deadline=None)
def test_any_number_of_workers_makes_the_same_batches_from_anywhere_on(
    pictures: PictureExamples, workers: int, start: int
) -> None:
    state = torch.get_rng_state()
    alone = taken(of(pictures), range(6), 0)
    assert alone[0].inputs["pixel_values"].dtype == torch.uint8
    assert same(taken(of(pictures), range(start, 6), workers), alone[2 * start :])
    assert torch.equal(torch.get_rng_state(), state)  # dropout's numbers: a loader would take one of them
    assert not loader_workers()


def test_a_text_that_two_tensors_share_comes_over_whole() -> None:
    examples = CausalTokens(np.arange(90, dtype=np.int32), 7)
    assert same(taken(of(examples), range(3), 1), taken(of(examples), range(3), 0))


def test_the_next_batch_is_there_before_it_is_asked_for(pictures: PictureExamples) -> None:
    """In memory of this process, and counted as such; once batches are left nothing of it is held."""
    with batches_ahead(of(pictures), range(3), 0, CPU) as batches:
        assert ready(batches) == []
    with batches_ahead(of(pictures), range(3), 1, CPU) as batches:
        for _ in range(2):
            held = ready(batches)
            given = [tensor for part in next(batches) for tensor in (*part.inputs.values(), part.labels)]
            assert len(held) == 4 and not any(tensor.is_shared() for tensor in held)
            assert [tensor.data_ptr() for tensor in held] == [tensor.data_ptr() for tensor in given]
    assert ready(batches) == [] == list(batches)


def test_workers_end_where_batches_are_left(pictures: PictureExamples) -> None:
    with batches_ahead(of(pictures), range(100), 2, CPU) as batches:
        next(batches)
        workers = loader_workers()
        assert len(workers) == 2
    assert not any(worker.is_alive() for worker in workers)


def test_a_broken_picture_is_a_line_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / "broken.jpg"
    file.write_bytes(b"\xff\xd8 no more")
    examples = PictureExamples(Pictures([str(file)]), torch.zeros(1, dtype=torch.long), 32, 0)
    with pytest.raises(
        UserError, match=r"broken\.jpg: cannot be decoded .*; remove it or save it anew$"
    ) as said:
        taken(of(examples), range(2), 1)
    assert "\n" not in str(said.value)


def test_an_error_of_the_code_brings_its_trace() -> None:
    def make(number: int) -> list[Batch]:
        raise ZeroDivisionError("of all things")

    with pytest.raises(RuntimeError, match=r"ZeroDivisionError: of all things\n(.|\n)*in make"):
        taken(make, range(2), 1)


@pytest.mark.parametrize(
    ("number", "kind", "advice"),
    [(signal.SIGKILL, MachineError, "fewer"), (signal.SIGTRAP, UserError, "remove that file")],
)
def test_a_worker_that_dies_says_at_which_picture(
    number: signal.Signals,
    kind: type[Exception],
    advice: str,
    pictures: PictureExamples,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.1,))  # not 5 s

    def make(index: int) -> list[Batch]:
        batches = [pictures.batch(torch.tensor([7]), 0)]
        os.kill(os.getpid(), number)
        return batches

    before = signal.getsignal(signal.SIGCHLD)
    with pytest.raises(kind, match=rf"ended by {number.name} while it read .*7\.jpg; .*{advice}"):
        taken(make, range(2), 1)
    assert signal.getsignal(signal.SIGCHLD) is before  # torch's would raise in the midst of a step


def test_no_shared_memory_is_a_fault_of_the_machine(pictures: PictureExamples) -> None:
    """As in a container whose /dev/shm is full; a limit of the worker's own gets the same refusal."""

    def make(index: int) -> list[Batch]:
        batches = [pictures.batch(torch.tensor([7]), 0)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
        return batches

    with pytest.raises(
        MachineError, match=r"no shared memory \(.+\); /dev/shm may be full.*train\.workers=0$"
    ) as said:
        taken(make, range(2), 1)
    assert "\n" not in str(said.value)


def test_stop_signals_are_the_runs_to_heed(pictures: PictureExamples) -> None:
    with batches_ahead(of(pictures), range(8), 1, CPU) as batches:
        next(batches)
        (worker,) = loader_workers()
        for number in STOP_SIGNALS:
            os.kill(worker.pid or 0, number)
        assert len(list(batches)) == 7


def test_workers_die_with_a_run_that_is_killed(pictures: PictureExamples) -> None:
    """By the kernel's hand, in the midst of a batch that would take a minute."""
    reading, writing = os.pipe()
    run = os.fork()
    if not run:

        def make(number: int) -> list[Batch]:
            os.write(writing, f"{os.getpid()}\n".encode())
            time.sleep(60)
            os.write(writing, b"survived\n")
            return []

        with batches_ahead(make, range(4), 2, CPU) as batches:
            next(batches)
        os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as lines:
        workers = [int(lines.readline()) for _ in range(2)]
        os.kill(run, signal.SIGKILL)
        os.waitpid(run, 0)
        assert len(set(workers)) == 2
        assert lines.read() == ""  # the pipe is closed once nobody holds it: both have ended


def cores(number: int) -> Callable[[int], set[int]]:
    return lambda process: set(range(number))


def test_as_many_workers_as_pay(pictures: PictureExamples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", cores(32))
    monkeypatch.setattr(os, "cpu_count", lambda: 32)
    monkeypatch.setattr(process, "cpu_quota", lambda: None)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert [workers_for(pictures, CUDA, processes) for processes in (1, 4, 32)] == [16, 7, 1]
    held = TensorExamples({"x": torch.zeros(3, 1)}, torch.zeros(3, dtype=torch.long))
    assert workers_for(held, CUDA, 1) == workers_for(held, CPU, 1) == 0
    masked = MaskedTokens(np.zeros((3, 4), np.int32), (1, 2), torch.tensor([1, 2]), 3, 9, 0)
    assert (workers_for(masked, CUDA, 1), workers_for(masked, CPU, 1)) == (1, 0)
    monkeypatch.setattr(os, "sched_getaffinity", cores(8))
    assert workers_for(pictures, CUDA, 4) == 7  # srun has bound each process to cores of its own
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert workers_for(pictures, CUDA, 4) == 3  # a container has 8 cores, for two processes
    monkeypatch.setattr(os, "sched_getaffinity", cores(1))
    assert workers_for(pictures, CPU, 1) == 1
