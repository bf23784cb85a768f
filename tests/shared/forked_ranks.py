"""Processes that train together, forked from the launcher's parent of workers: nobody waits for their imports."""

from collections.abc import Callable
from typing import Any

import torch.multiprocessing

from hydra_plugins.pmexp_launchers import processes as workers


def start_ranks(work: Callable[..., None], *arguments: Any, processes: int) -> None:
    """Calls `work(rank, *arguments)` in each of `processes` processes, and waits for all."""
    workers.preload()
    torch.multiprocessing.start_processes(work, arguments, processes, start_method="forkserver")
