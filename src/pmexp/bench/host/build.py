"""Builds the library that stands for a CUDA device, for the CUDA that the installed torch was built with."""

import re
import shutil
import subprocess
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import torch

from pmexp.errors import UserError

LIBRARY = "libcuda.so.1"  # the name by which Triton and native calls look for the driver
_SOURCE = Path(__file__).with_name("stand_in.c")
_CALLERS = ("libtorch_cuda.so", "libc10_cuda.so", "libtorch_python.so", "libcaffe2_nvrtc.so")
_CALLED = re.compile(r" U ((?:__cuda|cuda|cublas|cu(?=[A-Z]))\w+)")
_BY_OTHERS = re.compile(r"cu(File|sparse|solver|fft|rand|dnn)")
_PRODUCTS = re.compile(r"cublas.*([gG]emm|Matmul$|gemv|dot|Dot|trsm)|LaunchKernel|LaunchCooperative")


def build(folder: Path) -> Path:
    """Writes the library into `folder` and returns its path. Raises UserError where it cannot be built."""
    if not torch.version.cuda or torch.version.hip:
        raise UserError(
            f"torch: {torch.__version__} is no build for CUDA, which this command takes the host's time of; "
            "install one (it needs no device)"
        )
    missing = [name for name in ("gcc", "nm") if shutil.which(name) is None]
    if missing:
        raise UserError(
            f"{missing[0]}: not found on PATH; install gcc and binutils, by which a library is built"
        )
    rest, target = folder / "rest.c", folder / LIBRARY
    rest.write_text(_rest())
    includes = [f"-I{path}" for path in _includes()]
    options = ["-O2", "-w", "-shared", "-fPIC", f"-Wl,-soname,{LIBRARY}"]
    command = ["gcc", *options, *includes, str(_SOURCE), str(rest), "-o", str(target), "-ldl"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise UserError(f"gcc: the library was not built: {(run.stderr.splitlines() or ['no message'])[0]}")
    return target


def _includes() -> list[Path]:
    """The folders of CUDA's headers, which come with torch's wheels and with Triton's."""
    packages = Path(sysconfig.get_path("purelib")) / "nvidia"
    folders = [header.parent for header in packages.glob("*/include/cuda_runtime_api.h")]
    if not folders:
        raise UserError("CUDA's headers: not found; install torch's wheel for CUDA with all that it needs")
    return [*folders, _triton() / "include"]


def _rest() -> str:
    """Source of the functions that torch and Triton call and stand_in.c has not: each returns success."""
    here = set(re.findall(r"^\w[^;=]*?\*{0,2}\b(\w+)\(", _SOURCE.read_text(), re.MULTILINE))
    wanted = sorted((_called_by_torch() | _called_by_triton()) - here)
    lines = ["void stand_in_launch(void);"]
    for name in wanted:
        launches = "stand_in_launch(); " if _PRODUCTS.search(name) else ""
        lines.append(f"int {name}(void) {{ {launches}return 0; }}")
    return "\n".join(lines) + "\n"


def _called_by_torch() -> set[str]:
    libraries = Path(torch.__file__).parent / "lib"
    called: set[str] = set()
    for name in _CALLERS:
        command = ["nm", "-D", "--undefined-only", str(libraries / name)]
        listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        called.update(_CALLED.findall(listing))
    return {name for name in called if not _BY_OTHERS.match(name)}


def _called_by_triton() -> set[str]:
    """Names that Triton's launcher has of the driver; a few are of types, which do no harm."""
    return set(re.findall(r"\bcu[A-Z][A-Za-z0-9]+(?![A-Za-z0-9]*_t\b)", (_triton() / "driver.c").read_text()))


def _triton() -> Path:
    """The folder of Triton's backend for CUDA. Raises UserError where there is none."""
    triton = find_spec("triton")
    if triton is None or triton.origin is None:
        raise UserError("triton: not installed; this command needs it")
    return Path(triton.origin).parent / "backends" / "nvidia"
