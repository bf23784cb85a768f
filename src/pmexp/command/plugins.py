"""Finds the options that installed packages add to those of conf/, without importing a package."""

from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from pmexp.errors import UserError

GROUP = "pmexp.plugins"  # entry points in it name packages, whose folders conf/ have groups as pmexp's has


@cache
def plugin_folders() -> tuple[Path, ...]:
    """The folders of options of all plugins, in the order of the plugins' names.

    Raises UserError for one that has none, and where two have an option of one name.
    """
    folders = tuple(_folder(point.name, point.value) for point in sorted(entry_points(group=GROUP)))
    given: dict[Path, Path] = {}
    for folder in folders:
        for file in folder.rglob("*.yaml"):
            other = given.setdefault(file.relative_to(folder), file)
            if other is not file:
                raise UserError(
                    f"{file}: would not be read, another plugin has {other}; uninstall one of them"
                )
    return folders


def _folder(name: str, package: str) -> Path:
    top, *below = package.split(".")
    spec = find_spec(top)
    places = list(spec.submodule_search_locations or ()) if spec else []
    folder = Path(places[0], *below, "conf") if places else None
    if folder is None or not folder.is_dir():
        raise UserError(
            f"the plugin {name} ({package}) has no folder conf of options; mend its package, or uninstall it"
        )
    return folder
