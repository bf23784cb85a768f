"""Writes the name and the description that MLflow shows of a run, from the run's tags alone. A person may
replace them."""

from collections.abc import Callable, Mapping

from pmexp.run_folder.differences import name_in_trackers

DIFFERS = "differs"  # the tag with what tells a run apart, or a parent's runs
NAME = "mlflow.runName"  # MLflow's name for the tag with the name
_LONGEST_NAME = 250  # characters, in a column of MLflow's database
NOTE = "mlflow.note.content"  # MLflow's name for the tag with the description, which is Markdown


def name_of(present: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """The name of a run that has the tags `present` and gets those `wanted`; a person's own stays."""
    written = present.get(NAME)
    return written if written and written not in (_named(present), _once(present)) else _named(wanted)


def _named(tags: Mapping[str, str]) -> str:
    return name_in_trackers(tags, tags.get(DIFFERS, ""))[:_LONGEST_NAME]


def _once(tags: Mapping[str, str]) -> str:
    """The name that earlier versions gave."""
    return "{}-{}-{}-s{}".format(*(tags.get(key) for key in ("variant", "system", "model", "seed")))


def note_of(
    present: Mapping[str, str], wanted: Mapping[str, str], describe: Callable[[Mapping[str, str]], str]
) -> str:
    """The description of a run that has the tags `present` and gets those `wanted`; a person's own stays."""
    written = present.get(NOTE)
    return written if written and written != describe(present) else describe(wanted)


def described_parent(tags: Mapping[str, str]) -> str:
    """Describes, in Markdown, the run that an experiment's runs are children of, by its tags."""
    labels = {name: tags[name] for name in ("variant", "system", "model", "dataset", "seed") if name in tags}
    several = {name: words for name, words in labels.items() if ", " in words}
    same = {name: words for name, words in labels.items() if name not in several}
    name = tags.get("name")
    lines = [
        f"The runs of experiment **{name}** are the children of this one.",
        *([f"- Compared: {_listed(several)}"] if several else []),
        *([f"- Settings that differ: `{tags[DIFFERS]}`"] if DIFFERS in tags else []),
        *([f"- The same in all: {_listed(same)}"] if same else []),
        *([f"- Command: `{tags['command']}`"] if "command" in tags else []),
        "- Metrics below `final/` are what a run ended with, one value a run, and what is compared; the "
        "others are curves over the steps of training.",
        "- To compare, select runs and press *Compare*. *Group by* the tag `variant` shows means over seeds; "
        "their intervals, tests and the verdict are in the report: artifact `report/index.html`, which "
        f"`python -m pmexp_analysis {name}` makes.",
        "- FINISHED says that no run goes on; what became of each is its own status.",
    ]
    return "\n".join([lines[0], "", *lines[1:]])


def described_child(tags: Mapping[str, str]) -> str:
    """Describes, in Markdown, one run by its tags."""
    origin = [
        f"on {tags['device']}" if "device" in tags else "",
        f"of host {tags['host']}" if "host" in tags else "",
        f"from commit {tags['git_sha'][:12]}" if "git_sha" in tags else "",
        "with changes that are in no commit" if tags.get("git_dirty") == "yes" else "",
    ]
    place = " ".join(filter(None, origin))
    differs = f", `{tags[DIFFERS]}`" if DIFFERS in tags else ""
    return (
        f"Variant **{tags.get('variant')}** of dropout in model {tags.get('model')} on dataset "
        f"{tags.get('dataset')}, system {tags.get('system')}, seed {tags.get('seed')}"
        f"{differs}"
        f"{', ' * bool(place)}{place}. "
        "Metrics below `final/` are what the run ended with, the others its curves. Journal, log and "
        f"configuration lie in `{tags.get('folder')}`."
    )


def _listed(labels: Mapping[str, str]) -> str:
    return "; ".join(f"{name} {words}" for name, words in labels.items())
