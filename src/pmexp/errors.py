"""Defines the exceptions by which a command can end that are no bug."""


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

    `typed` and `in_python` say what to do: with a command, and where Python asked for the run.
    """

    def __init__(self, said: str, typed: str, in_python: str) -> None:
        super().__init__(f"{said}; {typed}")
        self.in_python = f"{said}; {in_python}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type where the message is empty."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def error_line(error: BaseException) -> str:
    """Returns the error's type and the first line of its message, as one line."""
    return f"{type(error).__name__}: {first_line(error)}"


def reason(error: BaseException) -> str:
    """Returns in one line why a tracker failed, by its innermost error: MLflow wraps it in long messages."""
    if isinstance(error, UserError):
        return str(error)
    while inner := error.__cause__ or error.__context__:
        error = inner
    return error_line(error)


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
