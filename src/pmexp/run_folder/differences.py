"""Says what tells the runs of a sweep, or of an experiment, apart.

Lists, live lines, trackers and reports all ask here, so that a run has the same words in each.
"""

from collections import ChainMap, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

Run = TypeVar("Run", bound=Hashable)  # how the caller names a run
Told = tuple[Mapping[str, Any], Mapping[str, Any]]  # a run's labels, and its settings: dotted key -> value
Differing = Mapping[str, Any]  # label or dotted key -> value

SHARED_WITH = "train.shared_with"  # the key of a run whose training is another one's
_LABELS = ("model", "dataset", "system")  # the others, variant and seed, are in every run id
_SAID_BY_LABELS = {
    "seed",
    "model.name",
    "dataset.name",
    "variant.name",
    "system.name",
    "system.parts",
    SHARED_WITH,  # "(measured only)" behind the variant
}
# A dropout rate changes the training of every variant alike: it belongs to the task.
_OF_TASK = {"variant.p"}
_OPEN = ".options."  # a person names the keys below, so that one run has a key that another is without
_AS_TYPED = {"None": "null", "True": "true", "False": "false"}


def told_apart(runs: Mapping[Run, Told]) -> dict[Run, Differing]:
    """What each run has otherwise than some other.

    First the labels that differ, then the settings in their order. A setting counts where it differs among
    runs of one task, of one variant or of one system, whatever it belongs to: what follows from a label is
    said by the label. An option of code of one's own counts as well where a run is without it. For runs that
    nothing but variant and seed tells apart it is {}.
    """
    labels = [name for name in _LABELS if len({of[name] for of, _ in runs.values() if name in of}) > 1]
    keys = [
        key for key in _varying([settings for _, settings in runs.values()]) if key not in _SAID_BY_LABELS
    ]
    values: dict[tuple[Any, str], set[str | None]] = defaultdict(set)
    for of, settings in runs.values():
        for key in keys:
            if key in settings:
                values[of.get(part_of(key)), key].add(said(settings[key]))
            elif settings and _OPEN in key:
                values[of.get(part_of(key)), key].add(None)
    return {
        run: {name: of[name] for name in labels if name in of}
        | {
            key: settings[key]
            for key in keys
            if key in settings and len(values[of.get(part_of(key)), key]) > 1
        }
        for run, (of, settings) in runs.items()
    }


def keys_of(every: Iterable[Differing]) -> list[str]:
    """The labels and keys in which any of the runs differ, each once: the columns of a table of them."""
    return list(dict.fromkeys(key for differing in every for key in differing))


def words_of(differing: Differing) -> str:
    """Names what a run has otherwise as it is typed: "train.lr=0.001 variant.p=0.2"; empty for nothing."""
    return " ".join(f"{key}={said(value)}" for key, value in differing.items())


def swept(every: Iterable[Differing]) -> str:
    """Names all settings in which any of the runs differ with their values, as a sweep over them is typed."""
    values: dict[str, dict[str, None]] = defaultdict(dict)
    for differing in every:
        for key, value in differing.items():
            if key not in _LABELS:
                values[key][said(value)] = None
    return " ".join(f"{key}={','.join(there)}" for key, there in values.items())


def named(name: str, words: str) -> str:
    """Returns the name of a run with the words that tell it apart behind it."""
    return f"{name} {words}".rstrip()


def name_in_trackers(labels: Mapping[str, Any], words: str) -> str:
    """Names a run by variant, seed and the words that tell it apart: "pm-drop-s0 train.lr=0.001"."""
    return named(f"{labels.get('variant')}-s{labels.get('seed')}", words)


def said(value: Any) -> str:
    """A value of a setting as it is typed; the same for the text that a tracker keeps of it."""
    text = str(value)
    if text.startswith("["):
        text = text.replace("'", "").replace(", ", ",")
    return _AS_TYPED.get(text, text)


def part_of(key: str) -> str:
    """What of a run a setting belongs to: task, system or variant."""
    if key == SHARED_WITH:
        return "variant"
    group = key.partition(".")[0]
    return group if group in ("variant", "system") and key not in _OF_TASK else "task"


def distinct_items(mappings: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yields every key with each of its values, maybe several times; what is kept as one comes once."""
    seen: dict[int, Mapping[str, Any]] = {}  # held, so that no other gets its id
    for mapping in mappings:
        for part in mapping.maps if isinstance(mapping, ChainMap) else [mapping]:
            if id(part) not in seen:
                seen[id(part)] = part
                yield from part.items()


def _varying(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys with several values, in the order of the settings: few of a hundred, so that what follows is
    quick for thousands of runs."""
    first: dict[str, Any] = {}
    differing = {key for key, value in distinct_items(runs) if first.setdefault(key, value) != value}
    differing |= {
        key for key in first if _OPEN in key and any(settings and key not in settings for settings in runs)
    }
    return [key for key in first if key in differing]
