"""Entry point of one process of a run, started by `pmexp.systems.launch`."""

import json
import logging
import sys

from torch.distributed.elastic.multiprocessing.errors import record

from pmexp.config import from_dict
from pmexp.experiment import run
from pmexp.systems.ranks import end_process


@record  # the launcher reads what was raised
def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("pmexp").setLevel(logging.INFO)
    run(from_dict(json.loads(sys.argv[1])), capture_output="--capture-output" in sys.argv)


if __name__ == "__main__":
    main()
    end_process(0)
