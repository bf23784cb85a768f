"""How alike the parameter updates of two runs are, from the small projections that each run keeps."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pmexp.errors import UserError

_STREAM = "variant.mask_stream"
_FILE = Path("artifacts") / "updates.npz"


def cosines(run: Path, other: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(steps that both runs kept, cosine between their updates at each; NaN where one did not move).

    An estimate from 256 random sums: its error is at most about (1 - cosine^2) / 16, one standard deviation.

    Args:
        run, other: run folders of one model; their projections share all random signs.

    Raises UserError where a run kept no updates, or the runs no step in common.
    """
    (steps, updates), (other_steps, other_updates) = _read(run), _read(other)
    common, mine, theirs = np.intersect1d(steps, other_steps, return_indices=True)
    if not len(common):
        raise UserError(f"{run} and {other} kept updates of no step in common; set measure.updates alike")
    a, b = updates[mine], other_updates[theirs]
    with np.errstate(invalid="ignore"):  # 0 / 0
        return common, (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))


def is_control(settings: Mapping[str, object], of_baseline: Mapping[str, object]) -> bool:
    """Whether a run differs from the baseline's in its masks alone: it drops as the baseline does, and draws
    another stream of masks."""
    streams = [str(one.get(_STREAM)) for one in (settings, of_baseline)]
    keys = {key for key in {*settings, *of_baseline} if key.startswith("variant.")} - {
        _STREAM,
        "variant.name",
    }
    return streams[0] != streams[1] and all(settings.get(key) == of_baseline.get(key) for key in keys)


def _read(run: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    file = run / _FILE
    try:
        with np.load(file) as kept:
            return kept["steps"], kept["updates"].astype(np.float64)
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{file} cannot be read ({type(error).__name__}); the run must be finished, with measure.updates"
            " naming some of its steps"
        ) from None
