"""The module, the mode it is made with, and the user's snippet as it was written."""

import copy
import pickle
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from pmexp.packed_dropout import PackedDropout, replace_dropout, set_mode


@pytest.fixture(autouse=True)
def _default_mode() -> Iterator[None]:
    yield
    set_mode(bits_per_mask=1, rng="philox")


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("baseline-std-drop", (nn.Dropout, None, None)),
        ("pm-drop", (PackedDropout, 1, True)),
        ("pm-drop-no-cache", (PackedDropout, 1, False)),
        ("pm-drop-4bit", (PackedDropout, 4, True)),
    ],
)
def test_the_users_snippet(variant: str, expected: tuple[type, int | None, bool | None]) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3))
    if variant == "baseline-std-drop": replace_dropout(model, torch.nn.Dropout)  # fmt: skip  # noqa: E701
    elif variant == "pm-drop":          replace_dropout(model, PackedDropout, cache_unpacked=True)  # fmt: skip  # noqa: E701
    elif variant == "pm-drop-no-cache": replace_dropout(model, PackedDropout, cache_unpacked=False)  # fmt: skip  # noqa: E701
    elif variant == "pm-drop-4bit":     set_mode(bits_per_mask=4); replace_dropout(model, PackedDropout, cache_unpacked=True)  # fmt: skip  # noqa: E701, E702
    dropout = model[1]
    actual = (type(dropout), getattr(dropout, "bits", None), getattr(dropout, "cache_unpacked", None))
    assert actual == expected
    assert dropout.p == 0.3


def test_set_mode_is_for_modules_made_later() -> None:
    before = PackedDropout()
    set_mode(bits_per_mask=2, rng="torch")
    after = PackedDropout()
    assert (before.bits, before.rng) == (1, "philox")
    assert (after.bits, after.rng) == (2, "torch")
    assert PackedDropout(bits=4).bits == 4
    with pytest.raises(ValueError, match="allowed are 1, 2 and 4"):
        set_mode(bits_per_mask=3)
    assert PackedDropout().bits == 2


def test_copies_and_pickles_keep_the_options() -> None:
    module = PackedDropout(0.2, bits=4, cache_unpacked=False, rng="torch").eval()
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert repr(twin) == repr(module) and not twin.training
    assert module.state_dict() == {}


def test_eval_and_train_mode() -> None:
    module = PackedDropout(0.5)
    x = torch.ones(200)
    assert module.eval()(x) is x
    assert (module.train()(x) == 0).any()


def test_bad_options_are_refused_when_it_is_made() -> None:
    with pytest.raises(ValueError, match="probability"):
        PackedDropout(-0.1)
    with pytest.raises(ValueError, match="allowed are philox, torch"):
        PackedDropout(rng="other")  # type: ignore[arg-type]
