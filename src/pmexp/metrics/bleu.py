"""Computes BLEU by sacrebleu, which is imported where it is asked for alone."""

from collections.abc import Sequence


def bleu(written: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU, 0 to 100, of texts against a reference each: n-grams are counted over all of them, so it
    is no mean over texts. Raises ImportError without sacrebleu."""
    from sacrebleu.metrics import BLEU

    return float(BLEU().corpus_score(list(written), [list(references)]).score)


def bleu_signature() -> str:
    """Returns sacrebleu's signature: case, tokens, smoothing and version, which tell if BLEUs compare."""
    from sacrebleu.metrics import BLEU

    metric = BLEU()
    metric.corpus_score(["a"], [["a"]])  # which notes the number of references
    return str(metric.get_signature())
