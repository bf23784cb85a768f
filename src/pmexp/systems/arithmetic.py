"""How this process computes: its threads, the precision of float32 products, and whether results repeat.

The last two are switches of the whole process in torch, so every run sets both, whatever the one before had.
"""

import os

import torch

from pmexp.config import SystemConfig
from pmexp.errors import UserError
from pmexp.process import usable_cores

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_DETERMINISTIC_WORKSPACES = (":4096:8", ":16:8")  # the two under which cuBLAS repeats its results
_THREADS_SAID = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # by which the environment says torch's threads


def set_threads(threads: int | None) -> None:
    """Sets as many threads as `train.threads` says.

    None leaves torch's own choice, cut to the cores of a container's quota, which torch does not know, unless
    the environment says how many.
    """
    if threads is None and not any(os.environ.get(name) for name in _THREADS_SAID):
        cores = usable_cores()
        threads = cores if cores < torch.get_num_threads() else None
    if threads:
        torch.set_num_threads(threads)


def set_arithmetic(config: SystemConfig) -> None:
    """Sets what `system.matmul` and `system.deterministic` say, before the run's first work on CUDA.

    Raises UserError where this process has begun to use CUDA with another workspace of cuBLAS, which is read
    once.
    """
    torch.set_float32_matmul_precision(config.matmul.value)
    if config.deterministic and os.environ.get(_WORKSPACE) not in _DETERMINISTIC_WORKSPACES:
        if torch.cuda.is_initialized():
            raise UserError(
                "system.deterministic: this process has used CUDA already, and cuBLAS reads its workspace "
                f"once; start with {_WORKSPACE}={_DETERMINISTIC_WORKSPACES[0]}, or start this run by itself"
            )
        os.environ[_WORKSPACE] = _DETERMINISTIC_WORKSPACES[0]
    torch.use_deterministic_algorithms(config.deterministic)
    torch.backends.cudnn.deterministic = config.deterministic
    torch.backends.cudnn.benchmark = False


def record(device: torch.device) -> dict[str, str]:
    """Returns what is in force, for a run's record."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    on_cuda = {
        "float32_convolution": "tf32" if torch.backends.cudnn.allow_tf32 else "float32",
        "cublas_workspace": os.environ.get(_WORKSPACE, "torch's choice"),
        "cudnn_deterministic": "yes" if torch.backends.cudnn.deterministic else "no",
    }
    return {
        "float32_matmul": torch.get_float32_matmul_precision(),
        "deterministic": "yes" if deterministic else "no",
        **(on_cuda if device.type == "cuda" else {}),
    }
