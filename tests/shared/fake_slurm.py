"""SLURM's commands as a few lines of shell: they accept everything, execute nothing and say what a test tells them."""

from pathlib import Path

import pytest

_SBATCH = """
[ -f $D/refusal ] && cat $D/refusal >&2 && exit 1
[ -f $D/limit ] && [ -d $D/job1 ] && cat $D/limit >&2 && exit 1
number=1
until mkdir $D/job$number 2> /dev/null; do number=$((number + 1)); done
cp "$1" $D/script$number
[ -f $D/interrupted ] && kill -INT $PPID
echo "Submitted batch job $number"
[ -f $D/lasting ] || exit 0
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")
for index in $(seq 0 ${last:-0}); do
  echo "$number${last:+_$index}|PENDING|Priority" >> $D/queue
done
"""
_SCONTROL = """
[ "$2" = config ] && cat $D/config && exit 0
[ -f $D/end ] && echo "JobId=1 JobState=$(cat $D/end) Reason=None" && exit 0
echo "slurm_load_jobs error: Invalid job id specified" >&2 && exit 1
"""
_SQUEUE = """
[ -f $D/script1 ] && [ -f $D/silent ] && rm $D/silent && echo "Unable to contact slurm controller (connect failure)" >&2 && exit 1
cat $D/queue 2> /dev/null; exit 0
"""


class FakeSlurm:
    """`interrupted`: Ctrl-C is typed while sbatch submits. `limit`: what it says to the second submission, which it
    refuses. `lasting`: jobs stay in the queue; otherwise each is gone at once, ended as `end`. `silent`: the controller
    does not answer the first question after a submission.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._state = folder / "state"
        commands = folder / "bin"
        for each in (self._state, commands):
            each.mkdir(parents=True)
        bodies = {"sbatch": _SBATCH, "scontrol": _SCONTROL, "squeue": _SQUEUE, "srun": "", "sacct": "exit 1"}
        for name, body in bodies.items():
            file = commands / name
            file.write_text(f"#!/bin/sh\nD={self._state}\n{body}")
            file.chmod(0o755)
        self.tell("config", "MaxArraySize            = 1001\n")
        monkeypatch.setenv("PATH", str(commands), prepend=":")

    def tell(self, what: str, text: str = "") -> None:
        (self._state / what).write_text(text)

    def scripts(self) -> list[str]:
        """Returns the scripts that sbatch got, in order."""
        files = sorted(self._state.glob("script*"), key=lambda file: int(file.name.removeprefix("script")))
        return [file.read_text() for file in files]
