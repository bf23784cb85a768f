"""A change that autograd does not see makes no wrong gradient in silence: what was made again is compared."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.packed_dropout import PackedDropout, native, replace_dropout
from pmexp.packed_dropout.bit_comparison import ENVIRONMENT_VARIABLE, checksum_of

CHANGED = "was changed where autograd does not see it"


def nothing(tensor: Tensor) -> None:
    pass


def doubled(tensor: Tensor) -> None:
    tensor.data.mul_(2.0)


def rolled(tensor: Tensor) -> None:
    tensor.data.copy_(tensor.data.roll(1, -1))


class Layer(nn.Module):
    """GELU -> dropout -> linear layer, which change something between the steps.

    made, dropped, read: what is done to the result of GELU, to that of dropout, and to GELU's input at the end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)
        self.dropout = nn.Dropout(0.3)
        self.made = self.dropped = self.read = nothing

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        gelu = F.gelu(hidden)
        self.made(gelu)
        dropped = self.dropout(gelu)
        self.dropped(dropped)
        output: Tensor = self.second(dropped).square().sum()
        self.read(hidden)
        return output


class Shared(Layer):
    """What a dropout reads is held and kept for its product, and changed before backward."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).sin()[:, :8].contiguous()
        self.held = hidden  # somebody holds it
        output: Tensor = F.linear(self.dropout(hidden), self.second.weight[:, :8]).sum()
        self.read(hidden)
        return output


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = Layer()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = checkpoint(self.layer, x, use_reentrant=False)
        return output


KNOWN = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.3), nn.Linear(16, 4))


def replaced(cls: type[Layer] = Layer, first: bool = True, **options: float) -> tuple[Layer, Tensor]:
    """A model whose first backward is ahead or over, and its input."""
    torch.manual_seed(0)
    model, x = cls().train(), torch.randn(6, 8)
    model.report = replace_dropout(model, PackedDropout, recompute=True, **options)
    if not first:
        model(x).backward()
    return model, x


@pytest.mark.parametrize("change", [doubled, rolled])
@pytest.mark.parametrize("place", ["made", "dropped", "read"])
def test_the_first_forward_refuses_an_unseen_change(place: str, change: Callable[[Tensor], None]) -> None:
    model, x = replaced()
    setattr(model, place, change)
    with pytest.raises(RuntimeError, match=CHANGED):
        model(x).backward()
    assert model.report.rebuilt_equal == 0


def test_a_kept_input_is_compared_too() -> None:
    model, x = replaced(Shared)
    model.read = doubled
    with pytest.raises(RuntimeError, match=CHANGED):
        model(x).backward()


@pytest.mark.parametrize("by", [nullcontext, native.by_python])
def test_every_forward_is_compared_where_the_environment_asks(
    by: Callable[[], nullcontext[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with by():
        model, x = replaced(first=False)
        model.read = doubled
        model(x).backward()  # as long as nobody asks
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, "1")
        with pytest.raises(RuntimeError, match=CHANGED):
            model(x).backward()
        model.read = nothing
        model(x).backward()
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, "yes")
        with pytest.raises(RuntimeError, match=f"{ENVIRONMENT_VARIABLE}=yes is unknown; choose 0 or 1"):
            model(x)


def test_the_report_says_what_was_compared() -> None:
    model, x = replaced()
    loss = model(x)
    assert model.report.rebuilt_equal == 0 and "made again" not in str(model.report)
    loss.backward()
    assert model.report.rebuilt_equal == 1
    assert "1 x a dropped operand made again, bit for bit as it had been" in str(model.report)


@pytest.mark.parametrize("how", ["under the ledger", "checkpointed", "a known model", "with an example"])
def test_the_first_backward_compares(how: str) -> None:
    """Also where other hooks lie in between, and where nothing of the first forward needs to be seen."""
    model: Any = Checkpointed() if how == "checkpointed" else KNOWN if how == "a known model" else Layer()
    x = torch.randn(6, 8)
    example = {"example": (x,)} if how == "with an example" else {}
    report = replace_dropout(model.train(), PackedDropout, recompute=True, **example)
    assert report.settled == (how in ("a known model", "with an example"))
    with SavedForBackward(model) if how == "under the ledger" else nullcontext():
        loss = model(x).sum()
    assert report.rebuilt_equal == 0
    for _ in range(2):
        loss.backward()
        assert report.rebuilt_equal == 1
        loss = model(x).sum()


def test_flipped_bits_are_meant_to_differ() -> None:
    model, x = replaced(flip_rate=0.5)
    model(x).backward()
    assert model.report.rebuilt_equal == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (5, 7), (64, 128)])
def test_checksums_tell_values_and_places(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.randn(shape).to(dtype)
    assert torch.equal(checksum_of(x), checksum_of(x.clone()))
    if x.numel() > 1:
        assert torch.equal(
            checksum_of(x.mT if x.dim() > 1 else x), checksum_of(x.mT.clone() if x.dim() > 1 else x)
        )
        assert not torch.equal(checksum_of(x), checksum_of(x.roll(1)))
    for place in range(min(x.numel(), 5)):
        other = x.clone()
        other.view(-1)[place] += 1
        assert not torch.equal(checksum_of(x), checksum_of(other))


def test_a_checkpoint_that_draws_other_masks_in_backward_is_named() -> None:
    model = Layer()
    replace_dropout(model, PackedDropout, recompute=True)
    loss = checkpoint(model, torch.ones(4, 8), use_reentrant=False, preserve_rng_state=False)
    with pytest.raises(RuntimeError, match="a checkpoint with preserve_rng_state=False"):
        loss.backward()
