"""Entry point of one process of a run, started by `pmexp.systems.launch`."""

import json
import os
import sys

from pmexp.lasting_imports import lasting_imports

with lasting_imports():
    from torch.distributed.elastic.multiprocessing.errors import ErrorHandler, record

    from pmexp import logs
    from pmexp.config import from_dict
    from pmexp.systems.ranks import end_process
    from pmexp.training.run import run
    from pmexp.training.stop_signals import stop_with_parent

_GRACE_SECONDS = 60.0  # from the end of the launcher to the end of its ranks: a checkpoint fits in


class WholeErrorFile(ErrorHandler):
    """Writes what was raised whole or not at all: the launcher reads it once another rank has ended."""

    def _get_error_file_path(self) -> str | None:
        file = super()._get_error_file_path()
        return f"{file}.part" if file else None

    def record_exception(self, e: BaseException) -> None:
        super().record_exception(e)
        if part := self._get_error_file_path():
            os.replace(part, part.removesuffix(".part"))


def main() -> None:
    """Executes the run whose configuration, as JSON, is the first argument; the second is the parent's id."""
    logs.to_terminal()
    stop_with_parent(int(sys.argv[2]), _GRACE_SECONDS)
    run(from_dict(json.loads(sys.argv[1])), capture_output="--capture-output" in sys.argv)


if __name__ == "__main__":
    record(main, WholeErrorFile())()  # the launcher reads what was raised
    end_process(0)
