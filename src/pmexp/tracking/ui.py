"""`pmexp ui [name]`: MLflow's pages of these runs, opened on one experiment."""

import errno
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

from pmexp.command_line import Command, Given, Key, end, whole
from pmexp.errors import UserError, reason
from pmexp.process import heard_stop_signals
from pmexp.tracking.database import SQLITE, OpenExperiment, file_of, mlflow_uri, silence_mlflow
from pmexp.tracking.view import VIEW, VIEW_TAG

COMMAND = Command(
    "pmexp.tracking.ui",
    "serves MLflow's pages of these runs, to this machine alone unless host= says otherwise",
    (
        Key("name", "the experiment to open; without it the list of all"),
        Key("runs_dir", "where the runs are", "runs"),
        Key(
            "host",
            "the address it listens on: 0.0.0.0 in a container, whose ports are handed on",
            "127.0.0.1",
        ),
        Key("port", "the port it listens on", "5000"),
    ),
    word="name",
)
# By these MLflow's server lets its pages be opened; where it listens on all of a machine's, by 127.0.0.1.
_LOCAL = {"127.0.0.1": "127.0.0.1", "localhost": "localhost", "0.0.0.0": "127.0.0.1"}
_START_S, _STOP_S, _POLL_S = 120.0, 10.0, 0.2
_TRAINING = "workflowType=machine_learning"  # without it the pages are those for language models
# The server's job workers are for language models, which nobody uses here.
_SERVER = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until Ctrl-C. Returns the exit code: 0 done, 1 the server ended, 2 bad input."""
    return COMMAND.run(arguments, _serve)


def _serve(given: Given) -> int:
    silence_mlflow()
    host, port = given["host"], _port(given["port"])
    try:
        uri = f"{SQLITE}{Path(os.path.expanduser(given['runs_dir'])).resolve()}/mlflow.db"
        page = _page(uri, given.optional("name"))
        _check_port(host, port)
        print("starting MLflow ...", file=sys.stderr, flush=True)
        for number in heard_stop_signals():  # else its server would stay
            signal.signal(number, signal.default_int_handler)
        address = f"{_LOCAL.get(host, host)}:{port}"
        with _server(uri, host, port, address) as process:
            url = f"http://{address}/{page}"
            print(f"{url}\nCtrl-C ends it", flush=True)
            _show(url)
            process.wait()
    except KeyboardInterrupt:
        return 0
    return end("error: MLflow's server has ended", code=1)


def _port(text: str) -> int:
    return whole("port", text, what="port", most=2**16 - 1)


def _page(uri: str, name: str | None) -> str:
    """Returns where the experiment is, behind the server's address; without a name the list of all."""
    if not name:
        file = file_of(uri)
        if file and not file.is_file():
            raise UserError(f"there is no database at {uri}; start a run, or name its folder by runs_dir=")
        return f"#/experiments?{_TRAINING}"
    try:
        experiment = OpenExperiment(uri, name)
        tags = experiment.client.get_experiment(experiment.id).tags
    except UserError:
        raise
    except Exception as error:  # MLflow's or SQLAlchemy's
        raise UserError(f"{uri} cannot be read: {reason(error)}") from error
    view = f"&viewStateShareKey={VIEW}" if VIEW_TAG in tags else ""
    return f"#/experiments/{experiment.id}/runs?{_TRAINING}{view}"


def _check_port(host: str, port: int) -> None:
    """Raises UserError where nobody can listen there."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            probe.bind((host, port))
    except OSError as error:
        key, remedy = "host", "name an address of this machine, or 0.0.0.0 for all that it has"
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            key, remedy = "port", "end what listens there or choose another"
        raise UserError(f"{key}: {host}:{port} cannot be had ({error.strerror}); {remedy}") from None


@contextmanager
def _server(uri: str, host: str, port: int, address: str) -> Iterator[subprocess.Popen[bytes]]:
    """Starts MLflow's server and waits until it answers; all of its processes end with the block."""
    command = [
        sys.executable, "-P", "-m", "mlflow", "server", "--backend-store-uri", mlflow_uri(uri),
        "--host", host, "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    by_name = {"ALLOWED_HOSTS": address, "CORS_ALLOWED_ORIGINS": f"http://{address}"}
    named = {} if host in _LOCAL else {f"MLFLOW_SERVER_{name}": value for name, value in by_name.items()}
    environment = named | os.environ | _SERVER
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + _START_S
            while not _answers(address):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    lines = log.read().decode(errors="replace").strip().splitlines()
                    raise UserError(
                        f"MLflow's server does not start: {lines[-1] if lines else 'it says nothing'}"
                    )
                time.sleep(_POLL_S)
            yield process
        finally:
            _stop(process)


def _answers(address: str) -> bool:
    with suppress(OSError), urlopen(f"http://{address}/health", timeout=10) as answer:
        return bool(answer.status == 200)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        os.killpg(process.pid, signal.SIGKILL)  # a process of its group may have stayed
    process.wait()


def _show(url: str) -> None:
    """Opens it in a browser with windows, where there is one: one in the terminal would take the terminal."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return
    with suppress(webbrowser.Error):
        webbrowser.open(url)


if __name__ == "__main__":
    sys.exit(main())
