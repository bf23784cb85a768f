"""What running shows of the dropouts of transformers' models: routed, named, or configured and never called."""

import pytest
import torch
import transformers as hf

from pmexp.packed_dropout import PackedDropout, replace_dropout

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 50,
}


def test_attention_dropout_that_is_configured_and_never_called_is_said() -> None:
    config = hf.BigBirdConfig(
        **TINY, attention_type="block_sparse", block_size=4, num_random_blocks=1, max_position_embeddings=64
    )
    model = hf.BigBirdModel(config).train()
    report = replace_dropout(model, PackedDropout)
    model(torch.arange(48).view(1, 48))
    said = "0.1 is configured, and no dropout was called in attention"
    assert report.left["config.attention_probs_dropout_prob"] == said


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_transformers_attention_is_settled_dry(attention: str) -> None:
    model = hf.BertModel(hf.BertConfig(**TINY, attn_implementation=attention)).train()
    report = replace_dropout(model, PackedDropout, example={"input_ids": torch.arange(8).view(1, 8)})
    place = "encoder.layer.0.attention.self"
    assert report.settled and len(report.modules) == 3 and report.uncalled == []
    assert report.left == {} and report.functions == ([place] if attention == "eager" else [])
    assert report.attention == ({} if attention == "eager" else {place: "math kernel on cpu"})


def test_a_layer_that_is_dropped_at_random_does_not_stop_a_dry_run() -> None:
    sizes = {
        f"{side}_{what}": 1
        for side in ("encoder", "decoder")
        for what in ("layers", "ffn_dim", "attention_heads")
    }
    model = hf.BartModel(hf.BartConfig(vocab_size=50, d_model=16, **sizes, encoder_layerdrop=0.5)).train()
    report = replace_dropout(model, PackedDropout, example={"input_ids": torch.arange(3, 11).view(1, 8)})
    assert report.settled and len(report.functions) == 4


def test_sew_d_draws_its_own_masks() -> None:
    config = hf.SEWDConfig(**TINY, conv_dim=(8,), conv_kernel=(4,), conv_stride=(2,), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, squeeze_factor=1, apply_spec_augment=False, activation_dropout=0.1, hidden_dropout=0.1)  # fmt: skip
    model = hf.SEWDModel(config).train()
    report = replace_dropout(model, PackedDropout)
    model(torch.randn(1, 64))
    assert report.settled and any("modeling_sew_d.py" in reason for reason in report.left.values())
