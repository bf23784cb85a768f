"""What the words of a report mean: one table, of which a report shows those that it uses."""

import re
from collections.abc import Iterable
from dataclasses import fields, is_dataclass

_MEANINGS = {  # a word and what it means; a word of one letter is a heading
    "baseline": "what everything is compared with, as a rule training with nn.Dropout",
    "variant": "one way of training that is compared with the others",
    "system": "the parts that change how a step is executed, such as bf16 or ZeRO; plain has none",
    "seed": "the number that all random choices of a run follow from",
    "pair": "a run of the variant and a run of the baseline with the same seed",
    "bit for bit": "equal in every bit of every number, not only to the digits shown",
    "one training": "variants whose losses agree at every logged step: they count as one piece of evidence",
    "mask": "what dropout keeps for the backward pass: which elements it dropped",
    "saved for backward": "bytes of the tensors that the forward pass of a step keeps for its backward pass",
    "peak tensor memory": "the most bytes that live tensors take at any moment of a step, optimizer included",
    "peak memory": "the most memory while training: of CUDA's allocator, or on a CPU of the whole process",
    "throughput": "training samples (or tokens) in a second",
    "step time": "the median time of a training step",
    "diverged": "the loss or the score became infinite or not a number",
    "never learned": "the model is no better than one answer for every sample, or its loss did not move",
    "90 % interval": "in 90 of 100 such studies it has the true value, and in 5 that is beyond either end",
    "95% interval": "the t interval of the mean difference: in 95 of 100 such studies it has the true one",
    "bootstrap 95%": "an interval from resampled pairs (BCa); too narrow for few seeds, it decides nothing",
    "non-inferior": "shown to be worse by no more than the margin, whether or not it is better",
    "with byte masks": "the value if the baseline's masks took one byte per element; ≤, ≥: a bound",
    "margin": "the largest difference that the experiment, written down beforehand, takes for none",
    "sigma": "the standard deviation of the baseline's scores over seeds",
    "relative": "the change in percent of the baseline: from the mean logarithm of the pairs' ratios",
    "paired p": "how likely so large a difference would be by chance alone: two-sided t-test over the pairs",
    "Holm p": "the paired p, corrected for the number of comparisons; significant below 0.05",
    "Welch p": "the same question asked without the pairing",
    "TOST p": "how likely so small a difference would be if the true one were beyond the margin",
    "d": "Cohen's d of pairs: the mean difference in units of its standard deviation",
    "P(more)": "the share of all pairs of runs of both sides in which the variant's has more; ties are half",
    "detectable": "the smallest difference that so many new pairs would show in 4 of 5 studies",
    "identical": "the losses of every logged step and the final weights are equal bit for bit",
    "equal": "this value is the same in every pair, which alone does not prove equal training",
    "equivalent": "shown to lie within the margin, on both sides",
    "not settled": "the runs settle it neither way; it does not mean that nothing differs",
    "not measured": "no finished run recorded what the criterion needs",
    "not comparable": "the two runs of every pair differ in data, precision or machine",
    "oom": "the run ended because memory did not suffice",
    "Pareto front": "the variants than which no other is better in one respect and as good in the other",
}
Words = list[tuple[str, str]]


def occurring(shown: object) -> Words:
    """(word, meaning) of the words that occur in what is shown: a text, or tables and lists of texts."""
    text = "\n".join(_texts(shown))
    lowered = text.casefold()
    return [
        (word, said)
        for word, said in _MEANINGS.items()
        if word.casefold() in lowered and _pattern(word).search(text)  # the first is far quicker
    ]


def _pattern(word: str) -> re.Pattern[str]:
    """The word or its plural; one of a letter or a sign as a heading alone."""
    if len(word) == 1:
        return re.compile(rf"^{re.escape(word)}$", re.MULTILINE)
    return re.compile(rf"(?<![\w-]){re.escape(word)}s?(?![\w-])", re.IGNORECASE)


def _texts(shown: object) -> Iterable[str]:
    if isinstance(shown, str):
        yield shown
    elif isinstance(shown, dict):
        for value in shown.values():
            yield from _texts(value)
    elif isinstance(shown, list | tuple):
        for item in shown:
            yield from _texts(item)
    elif is_dataclass(shown):
        for one in fields(shown):
            yield from _texts(getattr(shown, one.name))
