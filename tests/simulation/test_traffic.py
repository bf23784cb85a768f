"""The bytes that operators read and write, against sums done by hand."""

from collections.abc import Callable

import torch
from torch import Tensor

from pmexp.simulation.traffic import OperatorTraffic

ROWS, INPUTS, OUTPUTS = 6, 5, 7


def bytes_of(work: Callable[[], Tensor]) -> int:
    with OperatorTraffic() as traffic:
        work()
    return traffic.bytes


def test_a_product_reads_two_and_writes_one_whatever_its_dimensions() -> None:
    x, weight = torch.ones(2, ROWS // 2, INPUTS), torch.ones(INPUTS, OUTPUTS)
    by_hand = 4 * (ROWS * INPUTS + INPUTS * OUTPUTS + ROWS * OUTPUTS)
    assert bytes_of(lambda: x.view(ROWS, INPUTS) @ weight) == by_hand
    assert (
        bytes_of(lambda: x @ weight) == by_hand
    )  # torch views its result in three dimensions, and says it did not


def test_views_cost_nothing_and_copies_twice_their_size() -> None:
    x = torch.ones(ROWS, INPUTS)
    assert bytes_of(lambda: x.t()[1:].detach()) == 0
    assert bytes_of(lambda: x.t().contiguous()) == 2 * x.nbytes
