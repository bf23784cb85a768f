"""Projected updates: exact inner products within the error, equal signs in equal names, resumed alike."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pmexp.errors import UserError
from pmexp.measure.updates import _CHUNK, WIDTH, Updates, project, project_tensor
from pmexp_analysis.numbers.updates import cosines


def sketched(a: Tensor, b: Tensor, name: str) -> float:
    return float(project_tensor(a, name) @ project_tensor(b, name))


def test_inner_products_are_unbiased() -> None:
    """Over 400 projections the mean is within 4 of its standard errors, |a| |b| / sqrt(128 * 400) at most."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(3000, dtype=torch.float64, generator=generator) for _ in range(2))
    b = b + 0.3 * a
    mean = np.mean([sketched(a, b, f"layer.{number}") for number in range(400)])
    assert abs(mean - float(a @ b)) < 4 * float(a.norm() * b.norm()) / np.sqrt(128 * 400)


@pytest.mark.parametrize("period", [1, 2, 256, 768])
def test_structured_updates_meet_the_bound_too(period: int) -> None:
    """Mass in every `period`th element alone, as in one column of a weight: the rows' shifts spread it."""
    a = torch.zeros(256 * 768)
    a[::period] = 1.0
    estimates = np.array([sketched(a, a, f"weight.{number}") for number in range(50)]) / float(a @ a)
    assert np.sqrt(np.mean((estimates - 1) ** 2)) < 1.5 / np.sqrt(128)  # 1.5: 50 samples of it


def test_signs_and_places_are_spread_evenly() -> None:
    """Every unit vector goes to one place with one sign; each is as frequent as the others."""
    n = 8 * WIDTH
    units = torch.eye(n)[:: n // 512]
    images = torch.stack([project_tensor(unit, "w") for unit in units])
    assert torch.equal(images.abs().sum(1), torch.ones(512, dtype=torch.float64))
    assert abs(float(images.sum())) < 4 * np.sqrt(512)
    assert (images != 0).sum(0).max() < 12  # Poisson with a mean of 2


def test_pieces_do_not_matter_and_the_layout_neither() -> None:
    x = torch.randn(2, _CHUNK // 2 + 77)
    whole = project_tensor(x, "w")
    padded = torch.zeros(x.numel() + WIDTH)
    padded[: x.numel()] = x.flatten()
    piece = x.flatten()[:_CHUNK]  # the second one has signs of its own
    assert not torch.equal(project_tensor(piece.repeat(2), "w"), 2 * project_tensor(piece, "w"))
    assert torch.equal(project_tensor(x.t().contiguous().t(), "w"), whole)
    assert torch.allclose(project_tensor(padded, "w"), whole, rtol=0, atol=1e-9)  # float64 sums in two orders


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=500, hidden_size=48, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96
    )
    torch.manual_seed(0)
    return BertForSequenceClassification(config)


def trained(seed: int, folder: Path) -> list[Tensor]:
    """Six AdamW steps whose data differ a little by `seed`; the exact updates of steps 1, 3 and 6, on disk too."""
    model = bert()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    updates, exact = Updates(model, [1, 3, 6]), []
    for step in range(1, 7):
        generator = torch.Generator().manual_seed(step)
        ids = torch.randint(0, 500, (8, 12), generator=generator)
        torch.manual_seed(1000 * seed + step)  # another dropout
        before = copy.deepcopy(list(model.parameters()))
        with updates.step(step):
            model(ids, labels=ids[:, 0] % 2).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        if step in (1, 3, 6):
            moved = [(a - b).flatten() for a, b in zip(model.parameters(), before, strict=True)]
            exact.append(torch.cat(moved).detach().double())
    (folder / "artifacts").mkdir(parents=True)
    updates.write(folder / "artifacts" / "updates.npz")
    return exact


def test_cosines_of_two_runs_are_the_exact_ones_within_the_error(tmp_path: Path) -> None:
    """Three standard deviations of (1 - cosine^2) / 16."""
    ours, theirs = (trained(seed, tmp_path / str(seed)) for seed in (0, 1))
    steps, estimates = cosines(tmp_path / "0", tmp_path / "1")
    assert steps.tolist() == [1, 3, 6]
    for estimate, a, b in zip(estimates, ours, theirs, strict=True):
        exact = float(torch.cosine_similarity(a, b, dim=0))
        assert 0 < exact < 0.99
        assert abs(estimate - exact) < 3 * (1 - exact**2) / 16
    assert cosines(tmp_path / "0", tmp_path / "0")[1] == pytest.approx([1.0] * 3, abs=1e-12)


def test_a_small_change_of_large_weights_is_exact_to_a_part_in_a_thousand() -> None:
    """An update of 1e-6 of the weights, as late in fine-tuning: the difference of two projections against
    the projection of the difference."""
    model = nn.Linear(500, 500)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    updates = Updates(model, [1])
    with updates.step(1), torch.no_grad():
        for p in model.parameters():
            p.mul_(1 + 1e-6)
    exact = sum(
        project_tensor(p.detach().double() - before[name].double(), name)
        for name, p in model.named_parameters()
    )
    assert torch.allclose(updates.rows[0], exact, rtol=1e-3, atol=1e-12)


def test_wrappers_and_frozen_parameters_do_not_change_the_signs() -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    plain = project(model)
    wrapped = nn.Module()
    wrapped.module = nn.Module()
    wrapped.module._orig_mod = model
    assert torch.equal(project(wrapped), plain)
    model[1].requires_grad_(False)
    assert not torch.equal(project(model), plain)


def test_runs_without_a_step_in_common_are_refused(tmp_path: Path) -> None:
    for name, steps in (("a", [1]), ("b", [2])):
        model = nn.Linear(2, 2)
        updates = Updates(model, steps)
        for step in (1, 2):
            with updates.step(step):
                pass
        (tmp_path / name / "artifacts").mkdir(parents=True)
        updates.write(tmp_path / name / "artifacts" / "updates.npz")
    with pytest.raises(UserError, match="no step in common"):
        cosines(tmp_path / "a", tmp_path / "b")
    with pytest.raises(UserError, match="cannot be read"):
        cosines(tmp_path / "a", tmp_path / "c")
    assert np.isnan(cosines(tmp_path / "a", tmp_path / "a")[1]).all()  # nothing moved
