"""One line for a person and an exit code out of what can go wrong before a command has done its work."""

import re
import sys
from collections.abc import Callable

from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from pmexp.command.schema import unknown_key
from pmexp.errors import MachineError, UserError, said_of
from pmexp.masking import masked
from pmexp.run_folder.failure import FailureKind, kind_of
from pmexp.shown import printable

_NOISE = ("object_type=", "reference_type=", "full_key:", "See https://", "To append to your config use")


def exit_code(work: Callable[[], None], interrupted: str = "interrupted") -> int:
    """Does the work of a command: 0 done, 1 the machine failed, 2 bad input, 130 interrupted, the reason in
    one line on stderr."""
    try:
        work()
    except UserError as error:
        return end(f"error: {error}", code=2)
    except (HydraException, OmegaConfBaseException) as error:
        return end(f"error: {UserError(explain(error))}", code=2)
    except KeyboardInterrupt:
        return end(interrupted, code=130)
    except BrokenPipeError:  # who reads the output has seen enough
        raise
    except Exception as error:
        if kind_of(error) is not FailureKind.infrastructure:
            raise
        return end(f"error: {error if isinstance(error, MachineError) else said_of(error)}", code=1)
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
    in_file = re.search(r"In '([^']+)': Config\w+ raised .*not in .*full_key: (\S+)", str(error), re.DOTALL)
    if in_file:
        return f"{in_file[1]}.yaml: {unknown_key(in_file[2])}"
    again = re.match(r"Multiple values for (\S+)\.", str(error))
    if again:
        return f"{again[1]}: is chosen already; leave the + out"
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else None
    lines = [line.strip() for text in (error, cause) if text for line in str(text).splitlines()]
    wrong = re.match(r"Could not override '([^']+)'", str(error))
    if wrong:
        lines = [unknown_key(wrong[1])]
    message = "; ".join(dict.fromkeys(line for line in lines if line and not line.startswith(_NOISE)))
    key = getattr(cause or error, "full_key", None)
    return message if not key or key in message else f"{key}: {message}"
