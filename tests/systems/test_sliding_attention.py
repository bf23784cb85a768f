"""Sliding-block attention against transformers' eager Longformer, its oracle."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import LongformerConfig, LongformerForSequenceClassification
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.systems.flash import Flash
from pmexp.systems.sliding_attention import _PLANS, SlidingAttention, _plan

# Both take the same sums of products of numbers of order 1 in another order, some hundred roundings of
# 2^-24 or 2^-53 each; observed differences are 20 times smaller.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13}


class SoftmaxInItsOwnDtype(TorchFunctionMode):
    """Has softmax keep its dtype: the eager code takes it in fp32, whose rounding would hide ours in fp64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.softmax and args[0].dtype is torch.float64:
            kwargs.pop("dtype")
        return func(*args, **kwargs)


def pair(window: int, dtype: torch.dtype = torch.float64, p: float = 0.0) -> tuple[Any, SlidingAttention]:
    config = LongformerConfig(
        hidden_size=16, num_attention_heads=2, attention_window=[window], attention_probs_dropout_prob=p
    )
    eager = LongformerSelfAttention(config, 0).to(dtype).train()
    for parameter in eager.parameters():
        nn.init.normal_(parameter, std=0.4)
    return eager, SlidingAttention(copy.deepcopy(eager))


def call(attention: nn.Module, hidden: Tensor, padding: Tensor, is_global: Tensor) -> Tensor:
    with SoftmaxInItsOwnDtype():
        return attention(
            hidden,
            attention_mask=(is_global.float() - padding.float()) * 10000,
            is_index_masked=padding,
            is_index_global_attn=is_global,
            is_global_attn=bool(is_global.any()),
        )[0]


def gradients(attention: nn.Module, output: Tensor, hidden: Tensor) -> list[Tensor]:
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    inputs = [hidden, *attention.parameters()]
    actual = torch.autograd.grad((output * weights).sum(), inputs, allow_unused=True)
    return [torch.zeros_like(i) if g is None else g for i, g in zip(inputs, actual, strict=True)]


@settings(max_examples=40)
@given(
    window=st.sampled_from([4, 6, 8, 16]),  # transformers' own code fails at 2
    blocks=st.integers(1, 4),
    lengths=st.lists(st.floats(0, 1), min_size=1, max_size=3),
    rate=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    dtype=st.sampled_from(list(TOLERANCE)),
    training=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_it_is_the_eager_attention_forward_and_backward(
    window: int, blocks: int, lengths: list[float], rate: float, dtype: torch.dtype, training: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    length = blocks * window
    eager, ours = (attention.train(training) for attention in pair(window, dtype))
    hidden = torch.randn(len(lengths), length, 16, dtype=dtype, requires_grad=True)
    # From whole rows of padding, to none; every row has its own number of global tokens, or all have none.
    padding = torch.arange(length) >= torch.tensor([[round(part * length)] for part in lengths])
    is_global = (torch.rand(padding.shape) < rate) & ~padding
    theirs, actual = (call(attention, hidden, padding, is_global) for attention in (eager, ours))
    torch.testing.assert_close(actual, theirs, rtol=0, atol=TOLERANCE[dtype] * 4)
    assert not actual[padding].any()
    for ours_, theirs_ in zip(gradients(ours, actual, hidden), gradients(eager, theirs, hidden), strict=True):
        scale = max(1.0, theirs_.abs().max().item()) * length  # a sum over the tokens
        torch.testing.assert_close(ours_, theirs_, rtol=0, atol=TOLERANCE[dtype] * scale)


def small_model(p: float = 0.0) -> Any:
    config = LongformerConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32,
        attention_window=[8, 4], max_position_embeddings=80, attention_probs_dropout_prob=p,
        hidden_dropout_prob=0.0,
    )  # fmt: skip
    torch.manual_seed(1)
    return LongformerForSequenceClassification(config).double()


@pytest.mark.parametrize("length", [40, 37])
def test_a_whole_model_with_a_window_for_each_layer(length: int) -> None:
    eager = small_model()
    ours = copy.deepcopy(eager)
    Flash().before_variant(ours, torch.device("cpu"), half=False)
    assert list(ours.state_dict()) == list(eager.state_dict())
    ids = torch.randint(3, 50, (3, length))
    mask = (torch.arange(length) < torch.tensor([[length], [30], [7]])).long()
    losses = []
    for model in (eager, ours):
        with SoftmaxInItsOwnDtype():
            losses.append(model(ids, attention_mask=mask, labels=torch.tensor([0, 1, 0])).loss)
        losses[-1].backward()
    torch.testing.assert_close(losses[1], losses[0], rtol=0, atol=1e-14)
    for theirs, actual in zip(eager.parameters(), ours.parameters(), strict=True):
        assert (theirs.grad is None) == (actual.grad is None)
        if theirs.grad is not None:
            torch.testing.assert_close(actual.grad, theirs.grad, rtol=0, atol=1e-14)
    assert len(_PLANS) == 0  # gone with the batch


def test_no_query_sees_nothing_and_mask_rows_are_aligned() -> None:
    """The CPU's kernels make zeros of a row without keys; others make NaN. CUDA's copies unaligned rows."""
    padding = torch.arange(16) >= torch.tensor([[16], [3], [0]])
    is_global = (torch.arange(16) == 1) & ~padding
    plan = _plan(padding, is_global, 4, torch.float32)
    for mask in (plan.blocks, plan.everywhere):
        assert (mask == 0).any(-1).all()
        assert all(stride % 8 == 0 for stride in mask.stride()[:-1]) and mask.stride(-1) == 1


def test_gradcheck() -> None:
    torch.manual_seed(0)
    _, ours = pair(4)
    hidden = torch.randn(1, 8, 16, dtype=torch.float64, requires_grad=True)
    padding = torch.arange(8)[None] >= 7
    is_global = torch.arange(8)[None] == 2
    assert torch.autograd.gradcheck(lambda x: call(ours, x, padding, is_global), hidden)


def test_all_is_dropped_at_rate_1() -> None:
    hidden, none = torch.randn(1, 8, 16, dtype=torch.float64), torch.zeros(1, 8, dtype=torch.bool)
    for attention in pair(4, p=1.0):
        assert not call(attention, hidden, none, torch.arange(8)[None] == 2).any()


def test_dropout_has_the_mean_and_the_variance_of_the_eager_one() -> None:
    """A mean over 20,000 draws is off by sd / 141, a sum of variances by about 1 %: bounds are 6 and 4 times that."""
    torch.manual_seed(0)
    eager, ours = pair(4, p=0.25)
    rows = 20_000
    hidden = torch.randn(1, 8, 16, dtype=torch.float64)
    padding, is_global = torch.arange(8)[None] >= 7, torch.arange(8)[None] == 2
    with torch.no_grad():
        drawn = call(ours, *(t.expand(rows, *t.shape[1:]) for t in (hidden, padding, is_global)))
        theirs = call(eager, *(t.expand(rows, *t.shape[1:]) for t in (hidden, padding, is_global)))
        expected = call(ours.eval(), hidden, padding, is_global)[0]
    error = drawn.std(0) / rows**0.5
    assert ((drawn.mean(0) - expected).abs() <= 6 * error + 1e-12).all()
    torch.testing.assert_close(drawn.var(0).sum(-1), theirs.var(0).sum(-1), rtol=0.04, atol=1e-12)
    assert (drawn.var(0).sum(-1)[:7] > 0).all()


@pytest.mark.parametrize("p", [0.0, 0.1])
def test_memory_is_linear_in_the_length_and_without_dropout_below_eager(p: float) -> None:
    def saved(attention: nn.Module, length: int) -> int:
        padding = torch.zeros(1, length, dtype=torch.bool)
        with SavedForBackward(attention) as ledger:
            call(attention, torch.randn(1, length, 16), padding, torch.arange(length)[None] == 0)
        return ledger.total_bytes

    eager, ours = pair(64, torch.float32, p)
    short, long = saved(ours, 1024), saved(ours, 2048)
    assert long <= 2 * short
    # Under dropout the CPU runs the math kernel, which saves probabilities of 3w keys where eager has 2w + 1.
    assert p or short < 0.6 * saved(eager, 1024)


def test_what_it_cannot_do_is_an_error() -> None:
    _, ours = pair(8)
    none = torch.zeros(1, 6, dtype=torch.bool)
    with pytest.raises(ValueError, match="length 6 is no multiple of the window 4"):
        call(ours, torch.randn(1, 6, 16, dtype=torch.float64), none, none)
    with pytest.raises(ValueError, match="output_attentions"):
        ours(torch.randn(1, 8, 16), None, none, none, False, output_attentions=True)
