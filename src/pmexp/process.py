"""Says what every process of a run may use, and which signals ask it to stop."""

import os
import signal

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)  # a terminal's and SLURM's, to all


def usable_cores() -> int:
    """Returns how many cores this process may use: all of the machine's where nothing says fewer."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cores_of_each(processes: int) -> int:
    """Returns how many cores each of a run's `processes` has: all that it may use, where srun bound it."""
    usable = usable_cores()
    here = os.environ.get("LOCAL_WORLD_SIZE")  # which launchers of torch set
    is_bound = here is None and usable < (os.cpu_count() or 1)
    return usable if is_bound else usable // int(here or processes)
