"""Tensors that are made of others, taken apart and put together, counted and kept."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing._internal.two_tensor import TwoTensor

from pmexp.errors import UserError
from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.measure.tensor_parts import parts_of, put_together, storages, taken_apart
from pmexp.measure.updates import project
from pmexp.run_folder.folder import RunFolder
from pmexp.systems.engines.base import Engine
from pmexp.systems.ranks import Ranks
from pmexp.training import best_weights


def pair(start: float = 0.0) -> TwoTensor:
    return TwoTensor(torch.arange(6.0).view(2, 3) + start, torch.ones(2, 3) * start)


def test_a_plain_tensor_is_itself() -> None:
    x = torch.ones(3)
    assert parts_of(x) == {}
    assert [storage.data_ptr() for storage in storages(x)] == [x.data_ptr()]
    assert taken_apart({"x": x}) == {"x": x}


@pytest.mark.filterwarnings("ignore:Sparse CS:UserWarning", "ignore:Sparse BS:UserWarning")
@pytest.mark.parametrize(
    "sparse",
    [
        lambda x: x.to_sparse(),
        lambda x: x.to_sparse_csr(),
        lambda x: x.to_sparse_csc(),
        lambda x: x.to_sparse_bsr((2, 2)),
    ],
    ids=["coo", "csr", "csc", "bsr"],
)
def test_the_ledger_of_a_product_counts_a_sparse_operand(sparse: Callable[[Tensor], Tensor]) -> None:
    operand, weight = sparse(torch.eye(4)), torch.ones(4, 8).requires_grad_()
    with SavedForBackward(nn.Module()) as ledger:
        torch.sparse.mm(operand, weight)
    parts = storages(operand)
    assert ledger.total_bytes == sum({storage.data_ptr(): storage.nbytes() for storage in parts}.values())
    assert ledger.total_bytes >= 4 * 4 + 4 * 8  # four numbers, and their columns at least


def test_what_is_taken_apart_can_be_put_together() -> None:
    nested = TwoTensor(pair(1.0), pair(2.0))
    given = {"plain": torch.zeros(2), "pair": pair(), "nested": nested}
    apart = taken_apart(given)
    assert set(apart) == {"plain", "pair.a", "pair.b", *(f"nested.{x}.{y}" for x in "ab" for y in "ab")}
    whole = put_together(apart, given)
    assert set(whole) == set(given) and isinstance(whole["nested"], TwoTensor)
    again = taken_apart(whole)
    assert all(torch.equal(again[name], apart[name]) for name in apart)


def test_a_part_that_is_missing_leaves_the_whole_missing() -> None:
    assert put_together({"pair.a": torch.ones(2, 3)}, {"pair": pair()}) == {}
    assert set(put_together({"other": torch.ones(1)}, {"pair": pair()})) == {"other"}


class Paired(nn.Module):
    def __init__(self, start: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(pair(start))
        self.bias = nn.Parameter(torch.ones(2) * start)


def engine(module: nn.Module) -> Engine:
    made = Engine(Ranks(), torch.device("cpu"), clip_norm=None, scale_loss=False)
    made.prepare(module, lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    return made


def test_the_best_weights_are_kept_and_loaded(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir(parents=True)
    best_weights.save(folder, engine(Paired(3.0)), 7, ())
    other = Paired(0.0)
    best_weights.load(folder, engine(other), 7)
    expected = taken_apart(Paired(3.0).state_dict())
    assert all(torch.equal(value, expected[name]) for name, value in taken_apart(other.state_dict()).items())


def test_updates_of_what_does_not_tell_its_values_are_refused() -> None:
    with pytest.raises(UserError, match=r"measure\.updates: the parameter weight is a TwoTensor"):
        project(Paired(1.0))
