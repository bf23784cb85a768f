"""The command: keys in, exit code out."""

import logging
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pmexp.bench.options import level, micro_options, records_options, step_options
from pmexp.command.exit_code import end, exit_code
from pmexp.errors import ContenderFailed
from pmexp.masking import masked_arguments

if TYPE_CHECKING:
    from pmexp.bench.contenders import Contender

_USAGE = """\
python -m pmexp.bench level=micro [key=value ...]   dropout ops against nn.Dropout
  sizes=1000,32x128x768   shapes to drop; default: seven, of 1000 to 33554432 elements
  dtypes=fp32,bf16        of fp32, bf16, fp16 and fp64
  contenders=pm-drop-1bit,byte-mask   names out of the table; default: all. nn.Dropout is always there
  p=0.1                   probability of dropping an element
  device=auto             auto, cpu or cuda
  quick=true              three shapes and fewer rounds
  out=DIR                 writes micro.csv, micro.png, micro.pdf and environment.json there

python -m pmexp.bench level=step [key=value ...]    training steps of two variants in alternation
  variant=pm-drop against=baseline    two names of conf/variant
  steps=40                pairs of steps that count
  out=DIR                 writes step.json there
  every key of pmexp.train, such as model=tinybert model.pretrained=false dataset=reuters-r8

python -m pmexp.bench level=records [key=value ...] what journal and checkpoints cost a step
  steps=40 out=DIR, and every key of pmexp.train
"""


def main(arguments: Sequence[str] | None = None, field: "Sequence[Contender] | None" = None) -> int:
    """Returns the exit code: 0 done, 1 a contender is wrong, 2 bad input, 130 interrupted.

    `field`: contenders of level=micro in place of those known; the baseline has to be among them.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(given):
        print(_USAGE, end="")
        return 0
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        return exit_code(lambda: _run(given, field))
    except ContenderFailed as error:
        return end(f"error: {error}", code=1)


def _run(arguments: list[str], field: "Sequence[Contender] | None") -> None:
    command = shlex.join(["python", "-m", "pmexp.bench", *masked_arguments(arguments)])
    match level(arguments):  # each imports torch, for which a wrong key need not wait
        case "micro":
            micro = micro_options(arguments)
            from pmexp.bench.micro import run as run_micro

            run_micro(micro, command, field)
        case "step":
            step = step_options(arguments)
            from pmexp.bench.step import run as run_step

            run_step(step, command)
        case _:
            records = records_options(arguments)
            from pmexp.bench.records import run as run_records

            run_records(records, command)
