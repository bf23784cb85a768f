"""Code of somebody's own that seeds torch, in a forward or while a run is built, is told and on record."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pmexp.config import SystemConfig, TrainConfig
from pmexp.systems.system import System
from pmexp.training.described import noticed
from pmexp.training.loop import Training
from pmexp.training.reseeding import BuiltBy
from small_net import Net, examples
from small_runs import Runs


class Seeds(Net):
    """Seeds torch by `seed` in each forward, or only for its own random numbers."""

    def __init__(self, dropout: nn.Module, seed: int, forked: bool = False) -> None:
        super().__init__(dropout)
        self.seed, self.forked = seed, forked

    def forward(self, x: Tensor) -> object:
        with torch.random.fork_rng(enabled=self.forked):
            torch.manual_seed(self.seed)
            return super().forward(x)


class OfItsOwnGenerator(nn.Dropout):
    def __init__(self) -> None:
        super().__init__(0.5)
        self.generator = torch.Generator().manual_seed(1)

    def drop(self, input: Tensor, p: float, training: bool = True, inplace: bool = False) -> Tensor:
        noise = torch.rand(input.shape, generator=self.generator)
        return input * (noise >= p) / (1 - p) if training else input

    def forward(self, input: Tensor) -> Tensor:
        return self.drop(input, self.p, self.training)


class DrawsOnce(Net):
    """Draws in its first forward, and has no dropout that does."""

    def __init__(self) -> None:
        super().__init__(nn.Dropout(0.0))
        self.shift: Tensor | None = None

    def forward(self, x: Tensor) -> object:
        self.shift = torch.rand(4) if self.shift is None else self.shift
        return super().forward(x + self.shift)


def told(module: nn.Module, seed: int) -> str:
    config = TrainConfig(epochs=2, batch_size=8, lr=1e-2, log_every=1)
    data = examples(50, 0), examples(20, 1)
    run = Training(module, *data, config, ["accuracy"], 5, System(SystemConfig()))
    torch.manual_seed(seed)
    lines = [line for _ in islice(run.steps(), 3) for line in noticed(run)]
    assert (run.progress.reseeded in lines) is bool(run.progress.reseeded)
    return run.progress.reseeded


def test_a_forward_that_seeds_torch_is_named() -> None:
    assert told(Seeds(nn.Dropout(0.5), 7), 3).startswith("step 1 seeded torch by 7, so that masks may be the")


def test_one_that_seeds_it_by_the_seed_of_the_run_is_named_where_it_draws_the_same_again() -> None:
    said = told(Seeds(nn.Dropout(0.5), 3), 3)
    assert said.startswith("step 2 left torch's random numbers where they were, though dropout drew: masks")


def test_one_that_puts_torchs_state_back_is_named() -> None:
    assert told(Seeds(nn.Dropout(0.5), 7, forked=True), 3).startswith("step 1 left torch's random numbers")


@pytest.mark.parametrize(
    "module",
    [
        Net(nn.Dropout(0.5)),
        Net(nn.Dropout(0.0)),
        Net(nn.Dropout(1.0)),
        Net(OfItsOwnGenerator()),
        DrawsOnce(),
        Seeds(nn.Dropout(0.0), 3),
    ],
)
def test_nothing_is_said_of_others(module: nn.Module) -> None:
    assert told(module, 3) == ""


def test_a_metric_that_seeds_torch_leaves_the_masks_of_training_as_they_are() -> None:
    def losses(metric: str) -> list[float]:
        config = TrainConfig(epochs=3, batch_size=8, lr=1e-2, log_every=1)
        torch.manual_seed(2)
        net = Net(nn.Dropout(0.5))
        run = Training(
            net, examples(50, 0), examples(20, 1), config, ["accuracy", metric], 5, System(SystemConfig())
        )
        torch.manual_seed(3)
        return [metrics["train/loss"] for _, metrics in run.steps()]

    assert losses("own_models.of_reseeded_torch") == losses("own_models.of_class_zero")


def test_a_cuda_generator_that_is_seeded_alone_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two generators of the CPU stand for the device's, which is not here."""
    from pmexp.training import reseeding
    from pmexp.training.progress import Progress

    on_device = torch.Generator()
    monkeypatch.setattr(torch.cuda, "default_generators", (on_device,))
    progress = Progress()
    with reseeding.step_watched(progress, nn.Identity(), torch.device("cuda", 0)) as said:
        on_device.manual_seed(9)
    assert said[0].startswith("step 1 seeded torch by 9")


MODEL = [
    "model=own",
    "dataset=digits",
    "variant=pm-drop",
    "train.max_steps=3",
    "train.threads=1",
    "tracking=off",
]


@pytest.mark.parametrize(
    ("builder", "said"),
    [
        ("build_seeded", "model.builder: torch was seeded by 11 where it had been by 4, so that the weights"),
        (
            "build_of_numpy",
            "model.builder: no random number of torch's was drawn, so that the seed has no part",
        ),
        ("build_mixer", None),
    ],
)
def test_a_builder_that_seeds_torch_or_draws_nothing_is_on_record(
    builder: str,
    said: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs = Runs(tmp_path, capsys)
    code, _, err = runs.train(*MODEL, f"model.builder=own_models.{builder}", "seed=4")
    assert code == 0, err
    (summary,) = runs.summaries().values()
    recorded = summary["environment"].get("reseeded")
    assert recorded is None if said is None else recorded.startswith(said) and recorded in caplog.text
    assert said is not None or "seeded" not in caplog.text


def test_code_that_seeds_torch_by_the_same_seed_is_none() -> None:
    torch.manual_seed(4)
    built = BuiltBy()
    torch.manual_seed(4)
    torch.rand(3)
    built.note("model.builder", draws=True)
    built.note("variant.apply")
    assert built.said == []
    torch.manual_seed(0)
    built.note("variant.apply")
    assert len(built.said) == 1 and built.said[0].startswith("variant.apply: torch was seeded by 0")
