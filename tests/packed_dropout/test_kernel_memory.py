"""What kernels that drop inside keep: the figures of the report against what autograd saves of other calls."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmexp.packed_dropout import PackedDropout, attention, replace_dropout
from pmexp.packed_dropout.kernel_memory import (
    attention_bytes,
    kept_by_attention,
    kept_by_recurrence,
    recurrent_bytes,
)
from pmexp.simulation.internals import fake_tensors
from saved_tensors import saved_by

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16, torch.float64]


def sizes(saved: list[Tensor]) -> list[int]:
    """Bytes of each storage."""
    return list({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in saved}.values())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_attention_keeps_so_much_for_each_of_its_elements(dtype: torch.dtype) -> None:
    """By the growth over lengths, of which what is linear in them falls out."""

    def kept(tokens: int) -> int:
        query = torch.randn(2, 3, tokens, 16, dtype=dtype, requires_grad=True)
        return sum(sizes(saved_by(lambda: F.scaled_dot_product_attention(query, query, query, None, 0.3))[1]))

    square = (kept(192) - 2 * kept(128) + kept(64)) / (2 * 64**2) / (2 * 3)
    assert attention_bytes(CPU, dtype) == pytest.approx(square)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_keeps_so_much_more_with_dropout(kind: type[nn.RNNBase]) -> None:
    kept = []
    for p in (0.0, 0.2):
        layers, x = kind(3, 5, 3, dropout=p), torch.randn(7, 4, 3)
        kept.append(sum(sizes(saved_by(lambda: layers(x)[0])[1])))  # noqa: B023
    assert recurrent_bytes(kind, CPU, torch.float32) == (kept[1] - kept[0]) / (2 * 7 * 4 * 5)
    assert recurrent_bytes(kind, CPU, torch.float32) > 0


def test_the_report_says_what_is_kept_where_dropout_is_out_of_reach() -> None:
    model = nn.Sequential(nn.LSTM(2, 2, 2, dropout=0.1), nn.Dropout(0.1)).double()
    recurrent_bytes.cache_clear()
    state = torch.get_rng_state()
    report = replace_dropout(model, PackedDropout)
    assert torch.equal(torch.get_rng_state(), state)  # to measure draws nothing of a run's
    kept = recurrent_bytes(nn.LSTM, CPU, torch.float64)
    assert f"it keeps {kept:g} bytes an element for backward, on cpu in float64" in report.left["0"]


def test_measured_wherever_it_is_asked() -> None:
    expected = f" (measured: it keeps {attention_bytes(CPU, torch.float32):g} bytes"
    assert kept_by_attention(CPU, torch.float32).startswith(expected)
    attention_bytes.cache_clear()
    with torch.no_grad(), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert kept_by_attention(CPU, torch.float32).startswith(expected)
    attention_bytes.cache_clear()
    with fake_tensors():  # what those save says nothing of a kernel
        assert kept_by_attention(CPU, torch.float32).startswith(expected)
    assert kept_by_attention(CPU, torch.float8_e4m3fn) == ""
    with torch.device("meta"):
        recurrent = nn.LSTM(2, 2, 2, dropout=0.1)
    assert "on cpu in float32" in kept_by_recurrence(recurrent)
    assert kept_by_recurrence(nn.MultiheadAttention(2, 2)) == ""


def test_the_report_says_what_a_fused_kernel_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the choice of the kernel is made up: the CPU takes none of them for attention that drops."""
    monkeypatch.setattr(attention, "kernel_of", lambda *_, **__: "flash attention kernel on cpu")
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    report = replace_dropout(model, PackedDropout)
    model(torch.randn(1, 3, 8))
    kept = (
        f"it keeps {attention_bytes(CPU, torch.float32):g} bytes an element for backward, on cpu in float32"
    )
    assert report.left["self_attn"] == (
        f"attention dropout is drawn inside the flash attention kernel on cpu; it needs eager attention"
        f" (measured: {kept})"
    )
