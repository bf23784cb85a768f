"""`python -m pmexp.bench.gpu.stage_process MODULE FINDINGS DEVICE SIZE SECONDS STARTED`: a stage by itself.

STARTED, by time.monotonic(), is where its seconds begin: to import torch takes some of them.
"""

import gc
import importlib
import os
import sys
from contextlib import suppress

import torch

from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.budget import Budget, TimeIsUp, time_limit
from pmexp.bench.gpu.environment import environment
from pmexp.packed_dropout import native


def main(module: str, findings: str, device_name: str, size: str, seconds: str, started: str) -> int:
    """Returns 0 done, 1 failed, 3 out of time; what was found is in the file in each case."""
    with open(findings, "a", encoding="utf-8") as file:
        device = torch.device(device_name, 0) if device_name == "cuda" else torch.device(device_name)
        bench = Bench(device, size == "tiny", Budget(float(seconds), start=float(started)), file)
        try:
            bench.environment(environment(device))
            with time_limit(bench.budget.left):
                stage = importlib.import_module(module)
                gc.freeze()  # what is imported stays, and no collection before a peak looks through it again
                stage.measure(bench)
        except TimeIsUp:
            return 3
        except Exception as error:
            sys.excepthook(*sys.exc_info())
            bench.failed(module.rpartition(".")[2], error)
            return 1
        finally:
            if device.type == "cuda":
                _note_calls(bench)
    return 0


def _note_calls(bench: Bench) -> None:
    """Notes who called the kernels of packed dropout, where any ran."""
    with suppress(RuntimeError):  # a device that has failed answers nothing more
        if calls := native.calls_so_far(bench.device):
            bench.note(f"who calls the kernels of packed dropout: {calls}")


if __name__ == "__main__":
    status = main(*sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # everything is written, and a compiler's workers are not waited for
