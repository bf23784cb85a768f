"""Trains the tokenizer of a model that writes text: byte pairs, from whose ids the text comes back whole."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from pmexp.datasets.base import Split
from pmexp.errors import UserError
from pmexp.models.words import words_of

PAD, END = "<pad>", "</s>"
PAD_ID, END_ID = 0, 1
_FEWEST = 2 + 256  # these two and a token for each byte


def train_byte_pairs(train: Split, vocab_size: int) -> PreTrainedTokenizerFast:
    """GPT-2's byte-level tokenizer with a vocabulary of the training texts, the same on every run.

    With special tokens a text ends with `</s>`. Raises UserError for a vocabulary that not all bytes fit in.
    """
    inputs = words_of(train)
    if vocab_size < _FEWEST:
        raise UserError(
            f"model.architecture.vocab_size: {vocab_size} is too small for a tokenizer of byte pairs; "
            f"choose at least {_FEWEST}"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", pair=f"$A {END} $B:1 {END}:1", special_tokens=[(END, END_ID)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for texts in inputs for text in texts), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
