"""`make drill N=50`: runs are killed at random moments until they finish; each has to be the run left alone.

One run of each stack is left alone. Then runs of the same configuration are disturbed: SIGKILL, SIGTERM or
SIGUSR2 after a random time, from the start of the process (imports, building) to the writing of the summary, in
every try until a run ends by itself. Each step writes a checkpoint, so many kills fall into one. At the end the
journals (but for measured time and memory; on several processes bytes of tensors may differ by 1 %) and the final
weights are compared bit for bit.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from hydra_plugins.pmexp_launchers import processes
from hydra_plugins.pmexp_launchers.sweep import Outcome, is_finished
from pmexp.command.compose import compose
from pmexp.config import RunConfig
from pmexp.run_folder.folder import RunFolder
from same_run import assert_same_run
from small_runs import TINY_VIT

# One epoch, so that the one evaluation at its end is the best: its weights are the final ones.
RUN = [*TINY_VIT, "variant=pm-drop", "train.epochs=1", "train.batch_size=16", "train.log_every=1"]
HOW = ["tracking=off", "checkpoint.every_s=0"]
STACKS = {
    "plain": ["system=plain"],
    "bf16": ["system=bf16"],
    "checkpointing": ["system=checkpointing"],
    "asynchronous": ["system=plain", "checkpoint.asynchronous=true"],
    "zero2": ["system=zero2", "system.processes=2"],
}
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGUSR2)


@dataclass
class Tally:
    faults: int = 0
    runs: int = 0
    lost: int = 0
    different: int = 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("faults", type=int, help="faults to inject, spread over the stacks")
    parser.add_argument("--stacks", default=",".join(STACKS), help="some of " + ", ".join(STACKS))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    stacks = arguments.stacks.split(",")
    print(f"seed {arguments.seed}", flush=True)
    processes.preload()
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        for index, stack in enumerate(stacks):
            share = arguments.faults // len(stacks) + (index < arguments.faults % len(stacks))
            tally = drill(stack, share, random.Random(f"{arguments.seed} {stack}"), Path(scratch))
            wrong += tally.lost + tally.different
            print(
                f"{stack}: {tally.faults} faults in {tally.runs} runs, {tally.lost} runs lost, "
                f"{tally.different} not bit for bit the run left alone",
                flush=True,
            )
    return 1 if wrong else 0


def drill(stack: str, faults: int, chance: random.Random, scratch: Path) -> Tally:
    attempt(configuration(stack, scratch / stack / "first"))  # which pays for what the others find imported
    alone = configuration(stack, scratch / stack / "alone")
    began = time.monotonic()
    outcome = attempt(alone)
    duration = time.monotonic() - began
    if outcome.error:
        raise SystemExit(f"{stack}: the run left alone did not finish: {outcome.error}")
    tally = Tally()
    while tally.faults < faults:
        disturbed = configuration(stack, scratch / stack / f"run{tally.runs}")
        tally.runs += 1
        while not is_finished(disturbed) and tally.faults < 10 * faults:
            attempt(disturbed, chance, duration, tally)
            while RunFolder(disturbed.folder).is_claimed():  # by ranks whose launcher was killed
                time.sleep(0.1)
        tally.lost += not is_finished(disturbed)
        try:
            assert_same_run(disturbed.folder, alone.folder, ranks=disturbed.system.processes > 1)
        except AssertionError as error:
            tally.different += 1
            print(f"{stack}: {disturbed.folder}: {error}", file=sys.stderr)
        else:
            shutil.rmtree(disturbed.folder)
    return tally


def attempt(
    run: RunConfig, chance: random.Random | None = None, duration: float = 0.0, tally: Tally | None = None
) -> Outcome:
    """One process of the run, disturbed at a random moment unless it is faster."""
    worker = processes.Worker(run, slot=0, gpu=None)
    if chance and tally and not worker.wait(chance.uniform(0.0, duration)):
        tally.faults += 1
        os.kill(chance.choice(processes_of(worker.pid)), chance.choice(SIGNALS))
    return worker.outcome()


def processes_of(pid: int) -> list[int]:
    """The process and its children: the ranks of a run on several."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def configuration(stack: str, folder: Path) -> RunConfig:
    return compose([*RUN, *HOW, *STACKS[stack], f"runs_dir={folder}"])


if __name__ == "__main__":
    sys.exit(main())
