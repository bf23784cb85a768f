"""Builds calls.cpp against the installed torch, once for each torch, source and kind of machine.

The library lies in the user's cache folder, or in the one that `PMEXP_NATIVE_FOLDER` names, where one that
was built elsewhere for the same torch is found under the same name.
"""

import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import torch

FOLDER_VARIABLE = "PMEXP_NATIVE_FOLDER"
_FOLDER = Path(__file__).parent
_SOURCE = _FOLDER / "calls.cpp"
_MADE_OF = (_SOURCE, _FOLDER / "cuda_launch.h", _FOLDER / "routes.h", _FOLDER.parent / "cpu" / "core.h")
# torch's headers have warnings of their own, which -isystem silences.
_OPTIONS = ("-O2", "-std=c++17", "-shared", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off")
_LIBRARIES = ("-lc10", "-ltorch_cpu", "-ldl")

_log = logging.getLogger(__name__)


class NotBuilt(Exception):
    """Says in a few words why there is no library."""


def library() -> Path:
    """The library for this torch and machine, built if it is missing. Raises NotBuilt."""
    try:
        path = _folder() / file_name()
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            from filelock import FileLock  # torch depends on it too, and importing the method does without

            with FileLock(path.with_suffix(".lock")):  # one of several ranks builds
                if not path.exists():
                    _build(path)
    except (OSError, RuntimeError) as error:  # there may be no home, no room or no right to write
        raise NotBuilt(f"not built: {error}") from None
    return path


def is_built() -> bool:
    """Whether the library for this torch and machine is there."""
    try:
        return (_folder() / file_name()).exists()
    except (OSError, RuntimeError):  # as of a folder that may not be read, or where there is no home
        return False


def why_not() -> str | None:
    """Why nothing can be built here; None where it can."""
    if torch.__version__ < "2.11":  # whose streams have no native handle
        return "torch 2.11 or newer is needed"
    return "no C++ compiler" if _compiler() is None else None


def _compiler() -> str | None:
    """Path of the C++ compiler: CXX's, or else g++; None where it is not there."""
    return shutil.which(os.environ.get("CXX") or "g++")


def file_name() -> str:
    """Name of the library: equal names are made of the same source for the same torch and machine."""
    made_of = b"".join(file.read_bytes() for file in _MADE_OF) + " ".join(_OPTIONS + _LIBRARIES).encode()
    digest = hashlib.sha256(made_of).hexdigest()[:12]
    return f"pmexp-calls-{digest}-torch-{torch.__version__}-abi{_abi()}-{platform.machine()}.so"


def command(chosen: str, target: Path) -> list[str]:
    """The compiler's command line that writes the library to `target`."""
    place = Path(torch.__file__).parent
    flags = [f"-D_GLIBCXX_USE_CXX11_ABI={_abi()}", "-isystem", str(place / "include"), f"-L{place / 'lib'}"]
    return [chosen, *_OPTIONS, *flags, str(_SOURCE), "-o", str(target), *_LIBRARIES]


def _abi() -> int:
    return int(torch.compiled_with_cxx11_abi())


def _folder() -> Path:
    chosen = os.environ.get(FOLDER_VARIABLE)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(chosen) if chosen else Path(cache) / "pmexp"


def _build(path: Path) -> None:
    chosen, reason = _compiler(), why_not()
    if chosen is None or reason is not None:
        raise NotBuilt(reason)
    _log.info("building native calls of packed dropout, once for torch %s: half a minute", torch.__version__)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        target = Path(scratch) / path.name
        run = subprocess.run(command(chosen, target), capture_output=True, text=True, check=False)
        if run.returncode:
            errors = [line for line in run.stderr.splitlines() if "error" in line] or ["no message"]
            raise NotBuilt(f"the build failed: {errors[0]}")
        target.replace(path)
    _log.info("built native calls of packed dropout in %.0f s: %s", time.monotonic() - start, path)
