"""Runs level=loader: how many training pictures a second workers make, and how long a step waits for them.

Pictures are decoded, cut, flipped and augmented as in a run on ImageNet. Before any figure is shown, the
batches of every number of workers are compared with those made in the training thread, bit for bit. The
numbers of workers take turns; a turn's rate begins with its second batch, when the workers have started. A
step that takes its time sleeps, as a thread does that waits for a GPU.
"""

import resource
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from pmexp.bench.options import LoaderOptions
from pmexp.bench.pairs import paired_ratio
from pmexp.bench.results import write_record
from pmexp.datasets.picture_folder import pictures_of
from pmexp.datasets.pictures import Pictures
from pmexp.errors import ContenderFailed, UserError
from pmexp.measure.environment import environment
from pmexp.models import images
from pmexp.models.examples import Batch, PictureExamples
from pmexp.training.loader import batches_ahead

_CPU = torch.device("cpu")
_SIDE, _CROPS = 224, 64
_AHEAD = 3  # batches of each worker more than are taken: none is idle at the end of a turn


@dataclass(frozen=True)
class Loading:
    """What one number of workers does: a line of loader.csv."""

    workers: int
    batch: int
    pictures_per_s: float  # the median over turns
    cpu_ms: float  # a picture, of all processes: the median over turns, which busy neighbours hardly change
    ratio: float  # to the rate in the training thread, turn by turn
    low: float  # where the 95 % interval of the ratio begins
    high: float  # where it ends
    step_ms: int
    wait_share: float  # how much of the time such steps wait for a batch: the median over turns


def run(options: LoaderOptions, command: str) -> None:
    """Measures, prints and, with `out`, writes loader.csv and environment.json.

    Raises UserError where there are no pictures, ContenderFailed where workers make other batches.
    """
    with ExitStack() as stack:
        folder = options.pictures or _photographs(Path(stack.enter_context(TemporaryDirectory())))
        try:
            files = pictures_of(folder).pictures
        except (UserError, OSError):
            raise UserError(f"pictures: {folder} holds no picture; name a folder that does") from None
        batches = _Batches(files, options.batch)
        for workers in options.workers:
            batches.check(workers)
        rows = _rows(batches, options)
    record = {
        "command": command,
        "pictures": f"{len(files)} of {options.pictures or 'scikit-learn'}, {images.record()}",
        "environment": environment(_CPU),
    }
    print(_table(rows))
    if options.out is not None:
        for path in write_record(options.out, "loader.csv", rows, record):
            print(path)


def _photographs(folder: Path) -> Path:
    """Puts crops of two real photographs into `folder`, as JPEG of the size that is usual in ImageNet."""
    photographs = [Image.fromarray(one) for one in load_sample_images().images]
    for number in range(_CROPS):
        x, y = number % 8 * 8, number // 8 * 5
        crop = photographs[number % 2].crop((x, y, x + 560, y + 380))
        crop.resize((500, 375)).save(folder / f"{number:02d}.jpg", quality=90)
    return folder


class _Batches:
    def __init__(self, files: list[str], size: int) -> None:
        self.size, self._files = size, len(files)
        self._examples = PictureExamples(Pictures(files), torch.zeros(len(files)).long(), _SIDE, seed=0)

    def make(self, number: int) -> list[Batch]:
        """Makes a batch of training; each is of an epoch of its own."""
        rows = torch.arange(number * self.size, (number + 1) * self.size) % self._files
        return [self._examples.batch(rows, number)]

    def check(self, workers: int) -> None:
        """Raises ContenderFailed unless `workers` make what the training thread makes."""
        numbers = range(2 * max(1, workers))
        with batches_ahead(self.make, numbers, workers, _CPU) as ahead:
            for number, (made,) in zip(numbers, ahead, strict=True):
                pixels = self.make(number)[0].inputs["pixel_values"]
                if not torch.equal(made.inputs["pixel_values"], pixels):
                    raise ContenderFailed(f"{workers} workers: batch {number} differs from the thread's own")

    def turn(self, workers: int, steps: int, step_s: float) -> "_Turn":
        """Takes `steps` steps, which begin with the second batch, and then the batches made meanwhile."""
        numbers = range(1 + steps + _AHEAD * workers)
        before = _cpu_seconds()
        with batches_ahead(self.make, numbers, workers, _CPU) as ahead:
            next(ahead)
            begun = time.perf_counter()
            waited = sum(self._waits(ahead, steps, step_s))
            seconds = time.perf_counter() - begun
            for _ in ahead:
                pass
        return _Turn(seconds, waited, (_cpu_seconds() - before) / (len(numbers) * self.size))

    @staticmethod
    def _waits(ahead: Iterator[list[Batch]], steps: int, step_s: float) -> Iterator[float]:
        for _ in range(steps):
            time.sleep(step_s)
            asked = time.perf_counter()
            next(ahead)
            yield time.perf_counter() - asked


@dataclass(frozen=True)
class _Turn:
    seconds: float  # that the steps took
    waited: float  # seconds of them
    cpu: float  # seconds a picture


def _cpu_seconds() -> float:
    """Returns the CPU time of this process and of the workers that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _rows(batches: _Batches, options: LoaderOptions) -> list[Loading]:
    quick: dict[int, list[_Turn]] = {workers: [] for workers in options.workers}
    slow: dict[int, list[_Turn]] = {workers: [] for workers in options.workers}
    for turn in range(options.turns):
        for workers in options.workers if turn % 2 == 0 else reversed(options.workers):
            quick[workers].append(batches.turn(workers, options.steps, 0.0))
            slow[workers].append(batches.turn(workers, options.steps, options.step_ms / 1e3))
    alone = [turn.seconds for turn in quick[0]]
    return [_row(workers, options, alone, quick[workers], slow[workers]) for workers in options.workers]


def _row(
    workers: int, options: LoaderOptions, alone: list[float], quick: list[_Turn], slow: list[_Turn]
) -> Loading:
    seconds = [turn.seconds for turn in quick]
    against = paired_ratio(alone, seconds)
    return Loading(
        workers=workers,
        batch=options.batch,
        pictures_per_s=options.steps * options.batch / statistics.median(seconds),
        cpu_ms=1e3 * statistics.median(turn.cpu for turn in quick),
        ratio=against.ratio,
        low=against.low,
        high=against.high,
        step_ms=options.step_ms,
        wait_share=statistics.median(turn.waited / turn.seconds for turn in slow),
    )


def _table(rows: list[Loading]) -> str:
    first = rows[0]
    lines = [
        f"batches of {first.batch} pictures are the same bit for bit with any of these numbers of workers",
        f"{'workers':>7}{'pictures/s':>12}{'CPU ms':>8}  {'times the thread [95 %]':<28}"
        f"waits, {first.step_ms} ms a step",
    ]
    for row in rows:
        ratio = f"{row.ratio:.2f} [{row.low:.2f}, {row.high:.2f}]"
        lines.append(
            f"{row.workers:>7}{row.pictures_per_s:>12.1f}{row.cpu_ms:>8.2f}  {ratio:<28}{row.wait_share:.2%}"
        )
    return "\n".join(lines)
