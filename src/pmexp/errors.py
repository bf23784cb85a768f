"""Defines the exceptions by which a command can end that are no bug."""

_LONGEST_REASON = 500  # characters of another library's message


class UserError(Exception):
    """Something the user can mend: one line that names it, says what is allowed and what to do.

    Entry points print it without a traceback and exit with code 2. What it quotes of files and names may hold
    line ends and worse: they are escaped.
    """

    def __str__(self) -> str:
        message = super().__str__()
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)


class SweepAsked(UserError):
    """One run is composed of what describes a sweep.

    `instead` says what to do, and `to_train` where `pmexp train` was asked, which alone takes -m.
    """

    def __init__(self, said: str, to_train: str, instead: str) -> None:
        super().__init__(f"{said}; {instead}")
        self.to_train = f"{said}; {to_train}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type where the message is empty."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def error_line(error: BaseException) -> str:
    """Returns the error's type and the first line of its message, as one line."""
    return f"{type(error).__name__}: {first_line(error)}"


def innermost(error: BaseException) -> BaseException:
    """Returns the error that others were raised for, as their cause or while they handled it."""
    while inner := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = inner
    return error


def reason(error: BaseException) -> str:
    """Returns in one line why a tracker failed, by its innermost error: MLflow wraps it in long messages."""
    return str(error) if isinstance(error, UserError) else error_line(innermost(error))


def why_unread(error: BaseException) -> str:
    """Returns in one line, which is cut where it is long, why a file or a hub's dataset cannot be read.

    Who says it names the place, so that the innermost error's message is enough, without its type.
    """
    error = innermost(error)
    message = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
    return message if len(message) <= _LONGEST_REASON else f"{message[:_LONGEST_REASON]}..."


class MachineError(Exception):
    """The machine cannot do now what is asked for, such as write to a full disk: one line. Exit code 3."""


class Interrupted(Exception):
    """A stop signal ended the run at a step boundary; the same command goes on from its checkpoint."""


class Preempted(Interrupted):
    """SIGUSR2 ended the run, since a cluster wants the node back or the job's time is up. Start it again."""


class RunClaimed(UserError):
    """Another process executes the run."""


class RankFailed(Exception):
    """One process of a run failed and the others were ended; the message names it. Exit code 1."""


class RankOutOfMemory(Exception):
    """Memory did not suffice for one process of a run, before it had a folder: a result, not a failure."""


class SweepFailed(Exception):
    """Some runs of a sweep did not finish; the message lists them. Entry points exit with code 1."""


class ContenderFailed(Exception):
    """A benchmark's contender computes something else than it should; no figure is shown. Exit code 1."""
