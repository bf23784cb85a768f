"""Writes what `pmexp train --help` prints: the groups of options, and the keys of a composed run.

Hydra's own help composes the same and takes half as long again to list the groups. Imports no torch.
"""

from collections.abc import Sequence
from pathlib import Path
from string import Template

from omegaconf import OmegaConf, open_dict

from pmexp.command.composition import Source, ready, whole
from pmexp.command.meanings import annotated, launcher_lines
from pmexp.command.overrides import parsed
from pmexp.command.schema import folders_of_options
from pmexp.command_line import called
from pmexp.lasting_imports import without_collections
from pmexp.shown import folded

_BY_NAME = ("pmexp train", "pmexp sweep")
_BY_MODULE = ("python -m pmexp.train", "python -m pmexp.train -m")


def help_text(overrides: Sequence[str], source: Source, resolve: bool) -> str:
    """The help, with the values that the overrides give. `resolve`: with what ${key} refers to in its place.
    Raises UserError and what `explain` puts into words."""
    typed = parsed(overrides, launches=True)
    with ready(typed, source), without_collections():
        config = whole(typed, source)
    template = Template(config.hydra.help.template)
    with open_dict(config):
        del config["hydra"]
    keys = OmegaConf.to_yaml(config, resolve=resolve)
    by_module = called("pmexp.train")[0] != "pmexp"
    train, sweep = _BY_MODULE if by_module else _BY_NAME
    groups = _groups(source.folder)
    text = template.safe_substitute(
        TRAIN=train, SWEEP=sweep, APP_CONFIG_GROUPS=groups, CONFIG=annotated(keys)
    )
    return text + launcher_lines()


def _groups(folder: Path | None) -> str:
    """Lists the groups in lines `group: option, option`; `folder` has options of one's own."""
    options: dict[str, set[str]] = {}
    for top in filter(None, (*folders_of_options(), folder)):
        for file in top.rglob("*.yaml"):
            if file.parent != top:
                options.setdefault(str(file.parent.relative_to(top)), set()).add(file.stem)
    lines = [folded(f"{group}: ", ", ".join(sorted(names))) for group, names in sorted(options.items())]
    return "".join(f"{line}\n" for group in lines for line in group)
