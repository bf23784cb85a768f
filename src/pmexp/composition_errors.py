"""One line for a person and an exit code out of what can go wrong before a command has done its work."""

import difflib
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from pmexp.config import RunConfig
from pmexp.errors import UserError
from pmexp.masking import masked
from pmexp.shown import printable

_NOISE = ("object_type=", "reference_type=", "full_key:", "See https://", "To append to your config use")


def exit_code(work: Callable[[], None], interrupted: str = "interrupted") -> int:
    """Does the work of a command: 0 done, 2 bad input, 130 interrupted, the reason in one line on stderr."""
    try:
        work()
    except UserError as error:
        return end(f"error: {error}", code=2)
    except (HydraException, OmegaConfBaseException) as error:
        return end(f"error: {explain(error)}", code=2)
    except KeyboardInterrupt:
        return end(interrupted, code=130)
    return 0


def end(message: str, code: int) -> int:
    """Prints the message on stderr and returns the code."""
    print(printable(masked(message), lines=True), file=sys.stderr)
    return code


def explain(error: Exception) -> str:
    """What is wrong, what is allowed and, for a misspelt key, what was meant."""
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"{group}={option}: is not an option; allowed are {', '.join(sorted(error.options))}"
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else None
    lines = [line.strip() for text in (error, cause) if text for line in str(text).splitlines()]
    message = "; ".join(dict.fromkeys(line for line in lines if line and not line.startswith(_NOISE)))
    return message + _meant(message)


def _meant(message: str) -> str:
    wrong = re.match(r"Could not override '([^']+)'", message)
    if not wrong:
        return ""
    from hydra_plugins.pmexp_launchers.local import LocalLauncherConf  # only here: they import rich
    from hydra_plugins.pmexp_launchers.slurm import SlurmLauncherConf

    launchers = (_keys(each, "hydra.launcher.") for each in (LocalLauncherConf, SlurmLauncherConf))
    known = [*_keys(RunConfig), *itertools.chain(*launchers)]
    close = difflib.get_close_matches(wrong[1], known, n=1, cutoff=0.8)
    return f"; did you mean {close[0]}?" if close else "; --help lists the keys"


def _keys(cls: type[Any], prefix: str = "") -> Iterator[str]:
    hints = get_type_hints(cls)
    for field in fields(cls):
        yield prefix + field.name
        if is_dataclass(hints[field.name]):
            yield from _keys(hints[field.name], f"{prefix}{field.name}.")
