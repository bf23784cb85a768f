"""Checkpoints of model.kind=auto whose parts say different things, or do not say what a task needs."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, processors
from tokenizers import models as token_models
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertLMHeadModel,
    CanineConfig,
    CanineForSequenceClassification,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    FNetConfig,
    FNetForSequenceClassification,
    FSMTConfig,
    FSMTForConditionalGeneration,
    GPT2Config,
    GPT2ForSequenceClassification,
    LayoutLMv3Config,
    LayoutLMv3ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    M2M100Config,
    M2M100ForConditionalGeneration,
    Mamba2Config,
    Mamba2ForCausalLM,
    MarianConfig,
    MarianMTModel,
    MBart50Tokenizer,
    MBartConfig,
    MBartForConditionalGeneration,
    MBartTokenizer,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    XLMConfig,
    XLMWithLMHeadModel,
    XLNetConfig,
    XLNetForSequenceClassification,
)

from composed import config
from own_files import WORDS, write
from pmexp.errors import UserError
from pmexp.models.examples import EVALUATION
from pmexp.models.objectives import IGNORED
from pmexp.training.prepared import Prepared, prepare
from small_architectures import ENCODER, OBJECTIVES, SHORT

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<mask>")
MASKED = [*OBJECTIVES["masked_lm"], "dataset.padding=max"]
LLAMA: dict[str, Any] = ENCODER | {"vocab_size": 16, "max_position_embeddings": 64}
MAMBA: dict[str, Any] = {
    "vocab_size": 16, "hidden_size": 16, "num_hidden_layers": 1, "num_heads": 4, "head_dim": 8, "state_size": 8,
    "n_groups": 1, "chunk_size": 8,
}  # fmt: skip
PAIR: dict[str, Any] = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("own"), "jsonl")


def tokenizer_of_words(**special: str) -> PreTrainedTokenizerFast:
    words = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(token_models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 2)]
    )
    named = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"} | special
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


def prepared(
    module: PreTrainedModel, objective: list[str], files: Path, folder: Path, tokenizer: Any = None
) -> Prepared:
    """What a run of the module has that save_pretrained left in `folder`."""
    module.save_pretrained(folder)
    (tokenizer or tokenizer_of_words()).save_pretrained(folder)
    data = [f"model.path={folder}", f"dataset.path={files}", "dataset.max_length=16"]
    return prepare(config("model=auto", *objective, *data, *SHORT))


@pytest.mark.parametrize("pad", [9, -1])
def test_a_decoder_classifies_by_the_end_of_a_text_whatever_its_configuration_pads_by(
    pad: int, files: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = LlamaForSequenceClassification(LlamaConfig(**LLAMA, attention_dropout=0.1))
    module.config.pad_token_id = pad
    with caplog.at_level(logging.WARNING):
        training = prepared(module, OBJECTIVES["classification"], files, tmp_path).training
    assert f"pads by token {pad} and its tokenizer by 0" in caplog.text
    batch = training.train.batch(torch.arange(8), EVALUATION)
    logits = training.module.eval()(**batch.inputs).logits
    for row, mask in enumerate(batch.inputs["attention_mask"]):
        alone = batch.inputs["input_ids"][row : row + 1, : int(mask.sum())]
        torch.testing.assert_close(logits[row], module.eval()(input_ids=alone, use_cache=False).logits[0])


def test_padding_is_no_target_of_a_class_that_writes_into_its_labels(files: Path, tmp_path: Path) -> None:
    module = FSMTForConditionalGeneration(
        FSMTConfig(langs=["en", "de"], src_vocab_size=16, tgt_vocab_size=16, **PAIR)
    )
    training = prepared(module, OBJECTIVES["seq2seq"], files, tmp_path).training
    batch = training.train.batch(torch.arange(8), EVALUATION)
    texts = [len(text.split()) + 1 for text in batch.references]  # the end too
    assert batch.targets == sum(texts) < batch.labels.numel()
    assert (batch.labels == IGNORED).sum(1).tolist() == [batch.labels.shape[1] - text for text in texts]


def test_a_class_without_a_function_for_it_reads_its_target_as_its_own_loss_does(
    files: Path, tmp_path: Path
) -> None:
    module = M2M100ForConditionalGeneration(M2M100Config(vocab_size=16, **PAIR))
    training = prepared(module, OBJECTIVES["seq2seq"], files, tmp_path).training
    training.module.eval()
    batch = training.train.batch(torch.arange(8), EVALUATION)
    sources = {name: batch.inputs[name] for name in ("input_ids", "attention_mask")}
    theirs = module.eval()(**sources, labels=batch.labels.clone()).loss
    torch.testing.assert_close(training.summed_loss(batch)[0] / batch.targets, theirs)


def test_losses_of_routers_are_said_to_be_in_no_loss(files: Path, tmp_path: Path) -> None:
    routed = LLAMA | {
        "num_local_experts": 2,
        "num_key_value_heads": 2,
        "output_router_logits": True,
        "attention_dropout": 0.1,
    }
    made = prepared(MixtralForCausalLM(MixtralConfig(**routed)), OBJECTIVES["causal_lm"], files, tmp_path)
    assert "losses of routers, which are in no run's loss" in made.model.architecture
    assert not made.model.module.config.output_router_logits


def test_typed_losses_of_routers_are_refused(files: Path) -> None:
    sizes = [f"+model.architecture.{key}={value}" for key, value in LLAMA.items()]
    routed = ["model.pretrained=false", "model.architecture.model_type=mixtral", *sizes]
    asked = [*routed, "+model.architecture.output_router_logits=true", f"dataset.path={files}"]
    with pytest.raises(UserError, match="output_router_logits: true would add the losses of routers"):
        prepare(config("model=auto", *OBJECTIVES["causal_lm"], *asked, *SHORT))


def with_gap() -> PreTrainedTokenizerFast:
    tokenizer = tokenizer_of_words()
    words = {word: number for number, word in enumerate((*SPECIAL, *WORDS))} | {"and": 40}
    tokenizer.backend_tokenizer.model = token_models.WordLevel(words, unk_token="<unk>")
    return tokenizer


def pair_of_models() -> PreTrainedModel:
    parts = BertConfig(**ENCODER, vocab_size=16), BertConfig(**ENCODER, vocab_size=16)
    pair = EncoderDecoderModel(EncoderDecoderConfig.from_encoder_decoder_configs(*parts))
    pair.config.decoder_start_token_id, pair.config.pad_token_id = 2, 0
    return pair


REFUSED: list[tuple[Any, list[str], str, dict[str, Any]]] = [
    (lambda: LlamaForSequenceClassification(LlamaConfig(**LLAMA)), OBJECTIVES["classification"],
     "has 41 tokens and the model 16", {"tokenizer": with_gap}),
    (lambda: BertForMaskedLM(BertConfig(**LLAMA)), MASKED, "has no cls token",
     {"tokenizer": lambda: tokenizer_of_words(mask_token="<mask>")}),
    (lambda: CanineForSequenceClassification(CanineConfig(**ENCODER)), OBJECTIVES["classification"],
     "CanineForSequenceClassification has no table of tokens", {}),
    (lambda: FNetForSequenceClassification(FNetConfig(**LLAMA)),
     [*OBJECTIVES["classification"], "dataset.padding=longest"], "takes no attention_mask", {}),
    (lambda: LayoutLMv3ForSequenceClassification(LayoutLMv3Config(**LLAMA, visual_embed=False)),
     OBJECTIVES["classification"], "model.path: LayoutLMv3ForSequenceClassification of this checkpoint cannot", {}),
    (lambda: Mamba2ForCausalLM(Mamba2Config(**MAMBA)), [*OBJECTIVES["causal_lm"], "model.lora.rank=2"],
     "model.lora.targets: peft refuses some of these layers .*out_proj", {}),
    (pair_of_models, OBJECTIVES["seq2seq"], "is two models of other architectures", {}),
]  # fmt: skip


@pytest.mark.parametrize(("make", "objective", "message", "more"), REFUSED)
def test_what_cannot_run_is_one_line(
    make: Any, objective: list[str], message: str, more: dict[str, Any], files: Path, tmp_path: Path
) -> None:
    tokenizer = more["tokenizer"]() if more else None
    with pytest.raises(UserError, match=message):
        prepared(make(), objective, files, tmp_path, tokenizer)


def test_a_target_of_tokens_that_the_decoder_does_not_write_is_one_line(files: Path, tmp_path: Path) -> None:
    """The rest of the vocabulary, the source's, is as large as the tokenizer's."""
    apart: dict[str, Any] = {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False}
    module = MarianMTModel(MarianConfig(vocab_size=16, decoder_vocab_size=9, **apart, **PAIR))
    says = "has token 12 in a target, and the decoder of MarianMTModel writes 9 tokens; give the tokenizer"
    with pytest.raises(UserError, match=says):
        prepared(module, OBJECTIVES["seq2seq"], files, tmp_path)


@pytest.mark.parametrize("padding", ["longest", "bucketed"])
def test_padding_in_front_of_texts_is_not_left_in_a_batch(padding: str, files: Path, tmp_path: Path) -> None:
    module = LlamaForSequenceClassification(LlamaConfig(**LLAMA, attention_dropout=0.1))
    tokenizer = tokenizer_of_words(padding_side="left")
    asked = [*OBJECTIVES["classification"], f"dataset.padding={padding}"]
    with pytest.raises(
        UserError, match=f"dataset.padding: {padding} cuts .* pads in front of them; choose max"
    ):
        prepared(module, asked, files, tmp_path, tokenizer)


def of_languages(kind: type[Any], **languages: str) -> Any:
    begin = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    words = [(f"▁{word}", -1.0) for word in WORDS]
    return kind(vocab=[*begin, *words, ("ro_RO", 0.0), ("en_XX", 0.0), ("<mask>", 0.0)], **languages)


@pytest.mark.parametrize("kind", [MBartTokenizer, MBart50Tokenizer])
def test_texts_are_marked_by_the_languages_of_the_tokenizers_settings(
    kind: type[Any], files: Path, tmp_path: Path
) -> None:
    tokenizer = of_languages(kind, src_lang="ro_RO", tgt_lang="en_XX")
    module = MBartForConditionalGeneration(
        MBartConfig(**PAIR | {"vocab_size": len(tokenizer), "pad_token_id": 1})
    )
    made = prepared(module, OBJECTIVES["seq2seq"], files, tmp_path, tokenizer)
    batch = made.training.train.batch(torch.arange(4), EVALUATION)
    source, target = map(tokenizer.convert_tokens_to_ids, ("ro_RO", "en_XX"))
    assert (batch.inputs["input_ids"] == source).any(1).all() and (batch.labels == target).any(1).all()
    assert made.model.generation
    ids = made.training.module.generate(batch.inputs["input_ids"], max_new_tokens=2)
    read = torch.cat([batch.inputs["decoder_input_ids"], batch.labels[:, -1:]], 1)
    places = 1 if kind is MBartTokenizer else 2  # the language alone, or behind the end of a text
    assert torch.equal(ids[:, :places], read[:, :places])


def test_a_tokenizer_that_names_no_language_of_targets_is_one_line(files: Path, tmp_path: Path) -> None:
    tokenizer = of_languages(MBartTokenizer, src_lang="ro_RO")
    module = MBartForConditionalGeneration(
        MBartConfig(**PAIR | {"vocab_size": len(tokenizer), "pad_token_id": 1})
    )
    with pytest.raises(
        UserError, match="has ro_RO for sources and none for targets; write src_lang and tgt_lang"
    ):
        prepared(module, OBJECTIVES["seq2seq"], files, tmp_path, tokenizer)


FRONT_PADDED = {
    "counts": (lambda: GPT2ForSequenceClassification(GPT2Config(**LLAMA)), True),
    "rotates": (lambda: LlamaForSequenceClassification(LlamaConfig(**LLAMA, attention_dropout=0.1)), False),
    "looks back": (
        lambda: XLNetForSequenceClassification(
            XLNetConfig(vocab_size=16, d_model=16, n_layer=2, n_head=2, d_head=8, d_inner=16)
        ),
        False,
    ),
}


@pytest.mark.parametrize("kind", FRONT_PADDED)
@pytest.mark.parametrize("objective", ["classification", "regression"])
def test_padding_in_front_that_a_model_counts_as_positions_is_refused(
    kind: str, objective: str, files: Path, tmp_path: Path
) -> None:
    make, counts = FRONT_PADDED[kind]
    torch.manual_seed(0)
    asked = [*OBJECTIVES[objective], "dataset.padding=max"]
    tokenizer = tokenizer_of_words(padding_side="left")
    if counts:
        says = 'pads in front of the texts, .* counts padding as positions, .* "padding_side": "right" into'
        with pytest.raises(UserError, match=says):
            prepared(make(), asked, files, tmp_path, tokenizer)
        return
    training = prepared(make(), asked, files, tmp_path, tokenizer).training
    assert not training.train.batch(torch.arange(1), EVALUATION).inputs["attention_mask"][0, 0]


def test_padding_that_changes_answers_is_said_or_refused(files: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, _ = FRONT_PADDED["looks back"]  # at the last token, which is padding here
    asked = [*OBJECTIVES["classification"], "dataset.padding=max"]
    assert (
        prepared(make(), asked, files, tmp_path).model.architecture
        == "padding behind a text changes what it says"
    )
    says = "longest pads a text by what stands beside it, and padding changes what XLNetFor.* says of it; choose max"
    with pytest.raises(UserError, match=says):
        prepared(make(), [*asked[:-1], "dataset.padding=longest"], files, tmp_path)


@pytest.mark.parametrize("kind", ["ALBERT", "XLNet"])
def test_a_model_of_pairs_is_told_which_text_a_token_is_in(kind: str, files: Path, tmp_path: Path) -> None:
    """Their tokenizers of transformers 5 leave it out unless they are asked."""
    albert = {"vocab_size": 16, "embedding_size": 8, "max_position_embeddings": 64}
    of_albert = AlbertForSequenceClassification(AlbertConfig(**ENCODER, **albert))
    module = of_albert if kind == "ALBERT" else FRONT_PADDED["looks back"][0]()
    pairs = [
        "dataset=stsb",
        "dataset.text_columns=[text,turned]",
        "dataset.label_column=number",
        "dataset.padding=max",
    ]
    tokenizer = tokenizer_of_words(padding_side="right" if kind == "ALBERT" else "left")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A:0 </s>:0", pair="$A:0 </s>:0 $B:1 </s>:1", special_tokens=[("</s>", 2)]
    )
    inputs = (
        prepared(module, pairs, files, tmp_path, tokenizer)
        .training.train.batch(torch.arange(4), EVALUATION)
        .inputs
    )
    first_ends = (inputs["input_ids"] == 2).cumsum(1) - (inputs["input_ids"] == 2).long()
    assert torch.equal(
        inputs["token_type_ids"][inputs["attention_mask"] == 1], first_ends[inputs["attention_mask"] == 1]
    )


def test_a_type_that_nobody_stated_is_no_difference(files: Path, tmp_path: Path) -> None:
    module = LlamaForSequenceClassification(LlamaConfig(**LLAMA, attention_dropout=0.1))
    assert prepared(module, OBJECTIVES["classification"], files, tmp_path).model.architecture == ""


@pytest.mark.parametrize(
    ("cls", "sizes"),
    [
        (BertLMHeadModel, BertConfig(**ENCODER | {"vocab_size": 16, "initializer_range": 0.01})),
        (XLMWithLMHeadModel, XLMConfig(emb_dim=16, n_layers=1, n_heads=2, vocab_size=16)),
    ],
    ids=["by little", "past its padding"],
)
def test_a_model_that_looks_ahead_is_refused_however_little_it_says(
    cls: Any, sizes: Any, files: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    with pytest.raises(UserError, match="guesses a token from those behind it"):
        prepared(cls(sizes), OBJECTIVES["causal_lm"], files, tmp_path)
