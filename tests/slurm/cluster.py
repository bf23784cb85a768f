"""A private SLURM of four nodes on 127.0.0.1, out of Debian's packages: plain processes, all files in a folder.

Without accounting, so `sacct` fails, which is the harder case for a launcher. Partition `low` has two nodes,
`spot` two others, and those have to make way for jobs of `high`.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")
INSTALL = "apt-get install -y --no-install-recommends slurmctld slurmd slurm-client"
_NODES = [f"127.0.0.{last}" for last in range(2, 6)]  # names that every job on this machine can resolve
_WAIT_SECONDS = 30.0
_SBIN = "/usr/sbin"  # where a user's PATH may not lead

_CONF = """
ClusterName=tests
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
# A requeued job starts when its old credential has expired, by default after 120 s.
AuthInfo=cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={spool}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
SlurmctldParameters=preempt_send_user_signal
JobRequeue=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
MinJobAge=300
NodeName=127.0.0.[2-5] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{ports[1]}-{ports[4]}] \
 CPUs=8 RealMemory=8000 State=UNKNOWN
PartitionName=low Nodes=127.0.0.[2-3] Default=YES MaxTime=INFINITE State=UP
PartitionName=spot Nodes=127.0.0.[4-5] MaxTime=INFINITE State=UP PriorityTier=10 GraceTime=60
PartitionName=high Nodes=127.0.0.[4-5] MaxTime=INFINITE State=UP PriorityTier=20 PreemptMode=OFF
"""


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if _program(name) is None]


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which SLURM's commands reach a new cluster, which ends with the block."""
    (folder / "state").mkdir(parents=True)
    # Sockets lie there, whose paths have to be short.
    spool = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    for node in _NODES:
        (spool / node).mkdir()
    conf = folder / "slurm.conf"
    user = subprocess.run(["id", "-un"], check=True, capture_output=True, text=True).stdout.strip()
    conf.write_text(
        _CONF.format(folder=folder, spool=spool, user=user, ports=_neighbouring_ports(1 + len(_NODES)))
    )
    environment = os.environ | {"SLURM_CONF": str(conf)}
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        daemons.append(_daemon(folder, environment, "slurmctld", "-D"))
        daemons.extend(_daemon(folder, environment, "slurmd", "-D", "-N", node) for node in _NODES)
        _await(
            folder,
            lambda: (
                _answer(environment, "sinfo", "-h", "-N", "-p", "low,spot", "-o", "%T").split()
                == ["idle"] * len(_NODES)
            ),
        )
        yield environment
    finally:
        _stop(environment, daemons)
        shutil.rmtree(spool, ignore_errors=True)


def _stop(environment: dict[str, str], daemons: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ends the jobs and then the daemons, which the steps of jobs would outlive."""
    if daemons and daemons[0].poll() is None:
        _answer(environment, "scancel", "--signal=KILL", "--full", f"--user={os.getuid()}")
        _answer(environment, "scancel", f"--user={os.getuid()}")
        deadline = time.monotonic() + _WAIT_SECONDS
        while _answer(environment, "squeue", "-h") and time.monotonic() < deadline:
            time.sleep(0.1)
    for daemon in reversed(daemons):
        daemon.terminate()
    for daemon in daemons:
        try:
            daemon.wait(_WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _daemon(folder: Path, environment: dict[str, str], name: str, *arguments: str) -> subprocess.Popen[bytes]:
    program = _program(name)
    assert program
    with (folder / f"{name}{arguments[-1]}.out").open("wb") as output:
        return subprocess.Popen(
            [program, *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=_SBIN)


def _answer(environment: dict[str, str], *command: str) -> str:
    """What the command prints; nothing where it fails, as it does until the controller is up."""
    with suppress(subprocess.TimeoutExpired):
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=10
        ).stdout.strip()
    return ""


def _await(folder: Path, is_up: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not is_up():
        if time.monotonic() > deadline:
            logs = "\n".join(f"{log.name}: {log.read_text()[-1000:]}" for log in sorted(folder.glob("*.log")))
            raise AssertionError(f"SLURM did not start in {_WAIT_SECONDS:.0f} s\n{logs}")
        time.sleep(0.05)


def _neighbouring_ports(count: int) -> list[int]:
    """Free ports in a row: SLURM takes those of several nodes as a range."""
    for first in range(17800, 30000, count):
        sockets = [socket.socket() for _ in range(count)]
        try:
            for offset, each in enumerate(sockets):
                each.bind(("127.0.0.1", first + offset))
            return [first + offset for offset in range(count)]
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()
    raise AssertionError("no free ports")
