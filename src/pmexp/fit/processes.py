"""Starts the processes of one try, and ends all of them as soon as one says that memory is at its end.

They are forked from a parent that has imported torch, so that a try begins soon and with nothing of the one
before it. A process that waits for another in a collective hears of nothing: it is killed.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import NoReturn

from torch.distributed.elastic.utils.distributed import get_free_port

from pmexp.errors import RankFailed, UserError, error_line, first_line
from pmexp.fit.measure import Try, measure
from pmexp.fit.search import Probe
from pmexp.measure.out_of_memory import is_out_of_memory

_Said = Probe | UserError | RankFailed
_forkserver = multiprocessing.get_context("forkserver")
_LAST_WORDS_S = 2.0  # a rank that was killed is seen so long after another one has seen its connection lost


def measured(tried: Try) -> Probe:
    """What the try finds, by the process that needs most memory. Raises UserError for a run that cannot be
    prepared, and RankFailed for a process that ends by anything but a lack of memory."""
    ranks = started(execute, tried, tried.config.system.processes)
    try:
        return _heard(ranks, tried)
    finally:
        for process, receiver in ranks:
            process.kill()
            process.join()
            receiver.close()


def started(
    work: Callable[[Try, dict[str, str], Connection], None], tried: Try, processes: int
) -> list[tuple[BaseProcess, Connection]]:
    """The processes, in order of rank, each with where it says what it found."""
    _forkserver.set_forkserver_preload([__name__, "torch._dynamo"])  # which an optimizer imports
    port = get_free_port()
    ranks: list[tuple[BaseProcess, Connection]] = []
    for rank in range(processes):
        together = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
        place = {name: str(value) for name, value in together.items()} | {"MASTER_ADDR": "127.0.0.1"}
        receiver, sender = _forkserver.Pipe(duplex=False)
        process = _forkserver.Process(target=work, args=(tried, place if processes > 1 else {}, sender))
        process.start()
        sender.close()
        ranks.append((process, receiver))
    return ranks


def execute(tried: Try, place: dict[str, str], sender: Connection) -> NoReturn:
    """Tries in this process, says what came of it, and waits to be killed: an end would be a lost connection
    to the others, which they might say first."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(place)
    said: _Said
    try:
        said = measure(tried)
    except UserError as error:
        said = error
    except Exception as error:
        rank = f"rank {place['RANK']}: " if place else ""
        said = RankFailed(f"{rank}{error_line(error)}")
        if is_out_of_memory(error):
            said = _lacking(tried, f"{rank}{first_line(error)}")
    sender.send(said)
    while True:
        signal.pause()


def _heard(ranks: Sequence[tuple[BaseProcess, Connection]], tried: Try) -> Probe:
    waiting = {receiver: number for number, (_, receiver) in enumerate(ranks)}
    probes: list[Probe] = []
    while waiting:
        for receiver in wait(list(waiting)):
            assert isinstance(receiver, Connection)
            number = waiting.pop(receiver)
            said = _said(receiver, ranks[number][0], number)
            if isinstance(said, Probe) and said.peak_bytes is not None:
                probes.append(said)
            elif isinstance(said, Probe):
                return said
            elif isinstance(said, RankFailed) and (killed := _killed([process for process, _ in ranks])):
                return _lacking(
                    tried, f"{killed} was killed (SIGKILL), as the kernel does for want of memory"
                )
            else:
                raise said
    return max(probes, key=lambda probe: probe.peak_bytes or 0)


def _said(receiver: Connection, process: BaseProcess, number: int) -> _Said:
    try:
        said: _Said = receiver.recv()
        return said
    except EOFError:
        process.join()
        return RankFailed(f"rank {number}: ended by itself (exit code {process.exitcode})")


def _killed(processes: Sequence[BaseProcess]) -> str:
    """The first rank that was killed from outside; empty where none was."""
    wait([process.sentinel for process in processes], _LAST_WORDS_S)
    killed = [n for n, process in enumerate(processes) if process.exitcode == -signal.SIGKILL]
    return f"rank {killed[0]}" if killed else ""


def _lacking(tried: Try, why: str) -> Probe:
    return Probe(tried.value, None, {}, False, f"out of memory: {why}")


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
