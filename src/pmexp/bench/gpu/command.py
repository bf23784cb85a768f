"""The command: keys in, exit code out."""

import shlex
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec

from pmexp.command_keys import own_keys, path_of
from pmexp.errors import ContenderFailed, UserError
from pmexp.masking import masked_arguments

_USAGE = """\
python -m pmexp.bench.gpu [key=value ...]   memory and speed of BERT-Base and BERT-Large on a CUDA device
  out=docs/results/gpu.md   the page; the same as JSON beside it
  seconds=480               that it takes at most; what does not fit in is named
Needs torch, transformers, triton and numpy; from the source tree with PYTHONPATH=src.
"""
_NEEDED = ("torch", "transformers", "triton", "numpy")
_ROUNDS = 20
_MARGIN = 10.0  # seconds at the end, in which nothing begins
_FEWEST_SECONDS = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 a variant is wrong, 2 bad input or no CUDA, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(given):
        print(_USAGE, end="")
        return 0
    try:
        _measure(given)
    except (UserError, ContenderFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except KeyboardInterrupt:
        print("interrupted: what was measured by then is written", file=sys.stderr)
        return 130
    return 0


def _measure(arguments: list[str]) -> None:
    started = time.monotonic()
    keys, others = own_keys(arguments, ("out", "seconds"))
    if others:
        raise UserError(f"{others[0]}: is not a key of this command; allowed are out and seconds")
    seconds = _seconds(keys.get("seconds", "480"))
    out = path_of({"out": "docs/results/gpu.md", **keys}, "out")
    assert out is not None
    if out.suffix != ".md" or not out.parent.is_dir():
        raise UserError(f"out: {out} cannot be written; name a file with .md in a folder that is there")
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(f"{', '.join(missing)}: not installed for {sys.executable}; this command needs them")
    import torch  # takes seconds, for which a wrong key need not wait

    if not torch.cuda.is_available():
        raise UserError("device: this command needs a CUDA device, and torch finds none here")
    from pmexp.bench.gpu.budget import Budget, TimeIsUp, time_limit
    from pmexp.bench.gpu.plan import execute
    from pmexp.bench.gpu.record import new_record, write
    from pmexp.bench.gpu.workload import SIZES

    device = torch.device("cuda", torch.cuda.current_device())
    record = new_record(
        shlex.join(["python3", "-m", "pmexp.bench.gpu", *masked_arguments(arguments)]), device, seconds
    )
    budget = Budget(seconds - _MARGIN, start=started)
    try:
        with time_limit(seconds - (time.monotonic() - started)):
            execute(record, device, SIZES, _ROUNDS, budget, lambda found: write(found, out))
    except TimeIsUp:
        print(f"stopped after {seconds:g} s: what was measured by then is written", file=sys.stderr)
    print(out)


def _seconds(text: str) -> float:
    if not (text.isdecimal() and int(text) >= _FEWEST_SECONDS):
        raise UserError(
            f"seconds: {text!r} is too little or no number; allowed are {_FEWEST_SECONDS:g} and more"
        )
    return float(text)
