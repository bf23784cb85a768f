"""Makes text classifiers and language models, with the checkpoint's tokenizer or one trained here."""

import inspect
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from pmexp.config import INPUTS_OF, LANGUAGE, Inputs, ModelKind, Objective, Padding, RunConfig
from pmexp.datasets.base import Dataset, Split
from pmexp.datasets.captioned import Captioned
from pmexp.datasets.listops_trees import VOCABULARY
from pmexp.datasets.tagged_words import TaggedWords
from pmexp.errors import UserError
from pmexp.models import positions
from pmexp.models.base import (
    TaskModel,
    from_architecture,
    from_configuration,
    has_encoder_and_decoder,
    hf_fields,
)
from pmexp.models.byte_pairs import END_ID, train_byte_pairs
from pmexp.models.checkpoint import Loaded, load_pretrained, load_tokenizer, locate
from pmexp.models.cut_texts import cut_in, warn_of_cut
from pmexp.models.examples import (
    EVALUATION,
    CausalTokens,
    Examples,
    MaskedTokens,
    PaddedTexts,
    SymbolExamples,
    TensorExamples,
)
from pmexp.models.generation import Generation
from pmexp.models.looking_ahead import refuse_looking_ahead
from pmexp.models.objectives import AUTO_CLASSES
from pmexp.models.padding import effect_of_padding
from pmexp.models.pairs import encoded_pairs
from pmexp.models.token_files import token_ids
from pmexp.models.words import check_tells_words, encoded_words, words_of

log = logging.getLogger(__name__)

_INPUTS = ("input_ids", "token_type_ids", "attention_mask")
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def build(config: RunConfig, dataset: Dataset) -> TaskModel:
    """Builds the model of texts or symbols that `config` describes, with its tokenizer."""
    if INPUTS_OF[config.dataset.kind] is Inputs.symbols:
        return _of_symbols(config, dataset)
    tokenizer: Any
    if config.model.pretrained:
        folder = locate(config.model)
        tokenizer = load_tokenizer(folder, config)
        loaded = _trained(config, dataset, folder)
        fit_tokenizer(tokenizer, loaded.module, config)
    else:
        tokenizer = trained_tokenizer(config, dataset, _vocabulary(config))
        loaded = Loaded(untrained(config, len(dataset.classes), tokenizer.pad_token_id))
    length = config.dataset.max_length
    positions.check(length, loaded.module, config.model)
    own = loaded.module.config
    if own.is_encoder_decoder and getattr(own, "decoder_start_token_id", None) is None:
        own.decoder_start_token_id = own.pad_token_id  # T5 begins a target with padding
    objective = config.dataset.objective
    if objective is Objective.seq2seq:
        return _of_pairs(config, tokenizer, loaded, dataset.train)
    if objective is Objective.causal_lm and config.model.kind is ModelKind.auto:
        refuse_looking_ahead(config, loaded.module)
    names = inputs_of(loaded.module) if config.model.kind is ModelKind.auto else _INPUTS
    examples = examples_of(config, tokenizer, names)
    may_count = tokenizer.padding_side == "left" or config.model.kind is ModelKind.auto
    if may_count and objective not in LANGUAGE:
        first = examples(dataset.train.take(np.zeros(1, np.int64)), length)
        inputs = first.batch(torch.zeros(1).long(), EVALUATION).inputs
        if effect := effect_of_padding(config, tokenizer, loaded.module, inputs):
            told = ", ".join(filter(None, [loaded.architecture, effect]))
            loaded = loaded._replace(architecture=told)
    return loaded.task_model(examples, length)


def _vocabulary(config: RunConfig) -> int:
    """How many tokens the architecture has. Raises UserError for one that takes no texts."""
    size: int | None = getattr(from_architecture(config).get_text_config(), "vocab_size", None)
    if size is None:
        raise UserError(
            f"model={config.model.name}: has no vocabulary, and dataset={config.dataset.name} holds texts; "
            "choose two that fit"
        )
    return size


def trained_tokenizer(config: RunConfig, dataset: Dataset, vocabulary: int) -> Any:
    """A tokenizer of at most `vocabulary` tokens, made of the texts of train for the objective."""
    # Classifiers of an encoder with a decoder look at a text's end, which needs a token.
    has_end = has_encoder_and_decoder(config.model)
    train = train_byte_pairs if has_end else _TRAIN_TOKENIZER[config.dataset.objective]
    tokenizer = train(dataset.train, vocabulary)
    if len(tokenizer) > vocabulary:
        raise UserError(
            f"model.architecture.vocab_size: {vocabulary} is too small: a tokenizer of these texts has at "
            f"least {len(tokenizer)} tokens; choose as many or more"
        )
    return tokenizer


def examples_of(config: RunConfig, tokenizer: Any, names: Sequence[str]) -> Callable[[Split, int], Examples]:
    """Returns what encodes a split for the objective, except for pairs to translate.

    names: of the model's inputs.
    """
    objective, padding = config.dataset.objective, config.dataset.padding
    if objective is Objective.token_classification:
        check_tells_words(tokenizer)

    def examples(split: Split, length: int) -> Examples:
        if objective is Objective.masked_lm:
            return masked_blocks(tokenizer, split, length, config.seed)
        if objective is Objective.causal_lm:
            return CausalTokens(_ids(tokenizer, split, length + 1, line_end="\n"), length)
        of_words = objective is Objective.token_classification
        texts = (encoded_words if of_words else encoded)(tokenizer, split, length, names)
        if padding is Padding.max:
            return texts
        if "attention_mask" not in texts.inputs:
            raise UserError(
                f"dataset.padding: {padding.name} pads a text by what stands beside it, and model="
                f"{config.model.name} takes no attention_mask to tell padding apart; choose max"
            )
        if tokenizer.padding_side == "left":
            raise UserError(
                f"dataset.padding: {padding.name} cuts what stands behind the texts, and the tokenizer in "
                f"{tokenizer.name_or_path} pads in front of them; choose max"
            )
        return PaddedTexts(texts, padding is Padding.bucketed)

    return examples


def inputs_of(module: PreTrainedModel) -> tuple[str, ...]:
    """Returns what a tokenizer makes that the model takes: the text that a token is in (`token_type_ids`)
    is for those that tell two texts apart."""
    taken = inspect.signature(module.forward).parameters
    by_segments = module.config.model_type in ("funnel", "xlnet")  # which have no table of such
    tells_apart = by_segments or getattr(module.config, "type_vocab_size", 0) > 1
    return tuple(name for name in _INPUTS if name in taken and (tells_apart or name != "token_type_ids"))


def _of_pairs(config: RunConfig, tokenizer: Any, loaded: Loaded, train: Split) -> TaskModel:
    """A model that reads a source and writes its target."""
    dataset, module = config.dataset, loaded.module
    if not module.config.is_encoder_decoder:
        raise UserError(
            f"dataset.objective: seq2seq; {type(module).__name__} has no encoder of texts beside its "
            "decoder; choose an architecture that has both, such as t5, bart or marian"
        )
    assert dataset.max_target_length and dataset.generation.max_length
    for key, length in (
        ("dataset.max_target_length", dataset.max_target_length),
        ("dataset.generation.max_length", dataset.generation.max_length),
    ):
        positions.check(length, module, config.model, key)
    if getattr(tokenizer, "tgt_lang", "") is None:  # then transformers takes the source's
        raise UserError(
            f"model.path: the tokenizer in {tokenizer.name_or_path} marks texts by their languages, has "
            f"{tokenizer.src_lang} for sources and none for targets; write src_lang and tgt_lang into "
            "tokenizer_config.json there"
        )

    def examples(split: Split, length: int) -> Examples:
        return encoded_pairs(tokenizer, module, split, length, dataset)

    first = examples(train.take(np.zeros(1, np.int64)), dataset.max_length).batch(torch.zeros(1).long(), 0)
    begin = first.inputs["decoder_input_ids"][0, 0], first.labels[0, 0]
    generation = Generation(
        module, tokenizer, dataset.generation.beams, dataset.generation.max_length, *map(int, begin)
    )
    return loaded.task_model(examples, dataset.max_length + dataset.max_target_length, generation)


def _of_symbols(config: RunConfig, dataset: Dataset) -> TaskModel:
    """A classifier over the dataset's own vocabulary, whose token embeddings start from random values."""
    if config.model.pretrained:
        loaded = _trained(config, dataset, locate(config.model))
        _take_symbols(loaded.module)
    else:
        loaded = Loaded(untrained(config, len(dataset.classes)))
    length = config.dataset.max_length
    positions.check(length, loaded.module, config.model)

    def examples(split: Split, length: int) -> Examples:
        assert not isinstance(split.inputs, list | np.ndarray | Captioned | TaggedWords)
        return SymbolExamples(split.inputs, torch.from_numpy(split.labels), length)

    weights = f"{loaded.weights}, random: token embeddings of the symbols"
    return loaded._replace(weights=weights).task_model(examples, length)


def _take_symbols(module: PreTrainedModel) -> None:
    width = module.get_input_embeddings().embedding_dim
    symbols = nn.Embedding(len(VOCABULARY), width, padding_idx=0, dtype=torch.float32)
    nn.init.normal_(symbols.weight, std=module.config.initializer_range)
    module.set_input_embeddings(symbols)
    module.config.vocab_size = len(VOCABULARY)


def _trained(config: RunConfig, dataset: Dataset, folder: Path) -> Loaded:
    """Loads the checkpoint of `folder` with the positions asked for."""
    loaded = load_pretrained(AUTO_CLASSES[config.dataset.objective], folder, config, dataset.classes)
    if config.model.positions:
        extended = positions.extend(loaded.module, config.model)
        return loaded._replace(weights=f"{loaded.weights}, {extended}")
    return loaded


def fit_tokenizer(tokenizer: Any, module: PreTrainedModel, config: RunConfig) -> None:
    """Tells the model the tokenizer's padding, by which a decoder finds the end of a text to classify.

    Raises UserError for a tokenizer that cannot pad, or has more tokens than the model knows, and for a model
    without a table of tokens.
    """
    tokens = max(tokenizer.get_vocab().values()) + 1  # an added token may lie behind a gap
    if tokens > (known := _known_tokens(module, config)):
        raise UserError(
            f"model.path: the tokenizer in {tokenizer.name_or_path} has {tokens} tokens and the "
            f"model {known}; give the tokenizer that the weights were trained with"
        )
    if tokenizer.pad_token_id is None and config.dataset.objective not in LANGUAGE:
        raise UserError(
            f"model.path: the tokenizer in {tokenizer.name_or_path} has no pad_token, which texts of "
            "different lengths need; name one in its tokenizer_config.json"
        )
    for part in (module.config, module.config.get_text_config()):
        before = getattr(part, "pad_token_id", None)
        if tokenizer.pad_token_id is not None and before != tokenizer.pad_token_id:
            part.pad_token_id = tokenizer.pad_token_id
            if before is not None:
                log.warning(
                    "model.path: the model pads by token %s and its tokenizer by %d, which is taken",
                    before,
                    tokenizer.pad_token_id,
                )


def _known_tokens(module: PreTrainedModel, config: RunConfig) -> int:
    """Returns how many tokens the model has numbers for. Raises UserError where it has no table of them."""
    try:
        return len(module.get_input_embeddings().weight)
    except (NotImplementedError, AttributeError):
        raise UserError(
            f"model={config.model.name}: {type(module).__name__} has no table of tokens, as models that read "
            "letters or bytes (CANINE) have none; choose another architecture"
        ) from None


def untrained(config: RunConfig, classes: int, pad_token_id: int = 0) -> PreTrainedModel:
    """The architecture of the configuration with random weights; it needs no data and no checkpoint.

    For a dataset of symbols its token embeddings are those of the dataset's own vocabulary.
    """
    fields = hf_fields(config, classes) | {"pad_token_id": pad_token_id}
    if config.dataset.objective is Objective.seq2seq or has_encoder_and_decoder(config.model):
        fields |= {"eos_token_id": END_ID, "bos_token_id": None, "decoder_start_token_id": pad_token_id}
    hf_config = from_architecture(config, **fields)
    if config.model.positions:
        hf_config.max_position_embeddings = config.model.positions + positions.unused(hf_config)
    module = from_configuration(AUTO_CLASSES[config.dataset.objective], hf_config, config.dataset.objective)
    if INPUTS_OF[config.dataset.kind] is Inputs.symbols:
        _take_symbols(module)
    return module


def encoded(tokenizer: Any, split: Split, length: int, names: Sequence[str] = _INPUTS) -> TensorExamples:
    """Each sample's text or pair of texts, cut and padded to `length` tokens; names: the model's inputs."""
    assert isinstance(split.inputs, list)
    columns = [list(column) for column in zip(*split.inputs, strict=True)]
    options = {"padding": "max_length", "truncation": True, "max_length": length}
    # Tokenizers of models that tell two texts apart, such as ALBERT's, do not all say so by themselves.
    encoding = tokenizer(*columns, **options, return_token_type_ids="token_type_ids" in names)
    warn_of_cut("dataset.max_length", cut_in(encoding, length), len(split), length)
    inputs = {name: torch.tensor(encoding[name], dtype=torch.int32) for name in names if name in encoding}
    return TensorExamples(inputs, torch.from_numpy(split.labels))


def masked_blocks(tokenizer: Any, split: Split, length: int, seed: int) -> MaskedTokens:
    """All texts of the split joined and cut into blocks of `length` tokens; the rest at the end is left out.

    Raises UserError for a tokenizer without a mask token or tokens for the ends, or a split shorter than one
    block.
    """
    for name in ("mask", "cls", "sep"):
        if getattr(tokenizer, f"{name}_token_id") is None:
            raise UserError(
                f"dataset.objective=masked_lm: the tokenizer {tokenizer.name_or_path} has no {name} token; "
                "name one in its tokenizer_config.json"
            )
    inner = length - 2  # [CLS] and [SEP] stand around each block
    ids = _ids(tokenizer, split, inner)
    return MaskedTokens(
        ids[: len(ids) // inner * inner].reshape(-1, inner),
        (tokenizer.cls_token_id, tokenizer.sep_token_id),
        torch.tensor(tokenizer.all_special_ids),
        tokenizer.mask_token_id,
        len(tokenizer),
        seed,
    )


def _ids(tokenizer: Any, split: Split, at_least: int, line_end: str = "") -> NDArray[np.int32]:
    """(tokens,) int32: the ids of all texts of the split in a row, each text with `line_end` at its end.

    Raises UserError where there are fewer than `at_least`.
    """
    assert isinstance(split.inputs, list)
    inputs = split.inputs
    ids = token_ids(
        tokenizer, lambda: (text.removesuffix(line_end) + line_end for texts in inputs for text in texts)
    )
    if len(ids) < at_least:
        raise UserError(
            f"dataset.max_length: a block takes {at_least} tokens and a split has {len(ids)}; choose fewer"
        )
    return ids


def train_tokenizer(train: Split, vocab_size: int) -> PreTrainedTokenizerFast:
    """BERT's uncased WordPiece tokenizer with a vocabulary of the training texts, the same on every run."""
    inputs = words_of(train)
    tokenizer = _bert_pipeline(models.WordPiece(unk_token="[UNK]"))
    texts = [text for texts in inputs for text in texts]
    characters = set[str]().union(*map(tokenizer.normalizer.normalize_str, texts))
    # The trainer numbers "##x" pieces in the random order of a hash map and breaks ties by these numbers,
    # unless they are there before it starts. They are no special tokens in the tokenizer made below.
    continuations = [f"##{character}" for character in sorted(characters - set(" "))]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=_SPECIAL + continuations, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)  # which normalises them itself
    tokenizer = _bert_pipeline(models.WordPiece(tokenizer.get_vocab(), unk_token="[UNK]"))
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", _SPECIAL.index("[SEP]")), ("[CLS]", _SPECIAL.index("[CLS]"))
    )
    pad, unk, cls_token, sep_token, mask = _SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        unk_token=unk,
        cls_token=cls_token,
        sep_token=sep_token,
        mask_token=mask,
        model_input_names=list(_INPUTS),
    )


def _bert_pipeline(model: models.WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


_TRAIN_TOKENIZER = {
    Objective.classification: train_tokenizer,
    Objective.regression: train_tokenizer,
    Objective.token_classification: train_tokenizer,
    Objective.masked_lm: train_tokenizer,
    Objective.causal_lm: train_byte_pairs,
    Objective.seq2seq: train_byte_pairs,
}
