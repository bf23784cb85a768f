"""Entry point of one process of a run, started by `pmexp.systems.launch`."""

import json
import sys

from pmexp.lasting_imports import lasting_imports

with lasting_imports():
    from torch.distributed.elastic.multiprocessing.errors import record

    from pmexp import logs
    from pmexp.config import from_dict
    from pmexp.systems.ranks import end_process
    from pmexp.training.run import run
    from pmexp.training.stop_signals import stop_with_parent

_GRACE_SECONDS = 60.0  # from the end of the launcher to the end of its ranks: a checkpoint fits in


@record  # the launcher reads what was raised
def main() -> None:
    """Executes the run whose configuration, as JSON, is the first argument; the second is the parent's id."""
    logs.to_terminal()
    stop_with_parent(int(sys.argv[2]), _GRACE_SECONDS)
    run(from_dict(json.loads(sys.argv[1])), capture_output="--capture-output" in sys.argv)


if __name__ == "__main__":
    main()
    end_process(0)
