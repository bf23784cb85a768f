"""Scores texts against references by sacrebleu, which is imported where it is asked for alone.

Its counts are taken over all texts, so that no score is a mean over them. Raises ImportError without it.
"""

from collections.abc import Sequence
from typing import Any


def bleu(written: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU, 0 to 100, of texts against a reference each: n-grams of tokens are counted."""
    return _score(_bleu(), written, references)


def chrf(written: Sequence[str], references: Sequence[str]) -> float:
    """Corpus chrF2, 0 to 100, of texts against a reference each: n-grams of characters are counted."""
    return _score(_chrf(), written, references)


def bleu_signature() -> str:
    """Returns sacrebleu's signature: case, tokens, smoothing and version, which tell if BLEUs compare."""
    return _signature(_bleu())


def chrf_signature() -> str:
    """Returns sacrebleu's signature of chrF."""
    return _signature(_chrf())


def _bleu() -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU()


def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()


def _score(metric: Any, written: Sequence[str], references: Sequence[str]) -> float:
    return float(metric.corpus_score(list(written), [list(references)]).score)


def _signature(metric: Any) -> str:
    metric.corpus_score(["a"], [["a"]])  # which notes the number of references
    return str(metric.get_signature())
