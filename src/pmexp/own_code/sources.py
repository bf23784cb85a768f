"""Identifies code of one's own by its package's version and a digest of its sources, without importing it."""

import ast
import hashlib
import os
import sys
from base64 import urlsafe_b64decode
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from importlib.machinery import ModuleSpec
from importlib.metadata import distribution, packages_distributions
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from pmexp.errors import UserError, error_line
from pmexp.working_folder import search_here

# They count beside .py in a folder of one's own.
_NATIVE = (".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".so", ".pyd")


# What `described` said of a top-level name when a run of this process began that imports it.
_at_first_run: dict[str, str] = {}


def is_import_path(name: str) -> bool:
    """Whether a name is a dotted path such as package.module.MyDropout, which no name of pmexp's own is."""
    return "." in name and all(part.isidentifier() for part in name.split("."))


def check_import_path(key: str, value: str) -> None:
    """Raises UserError for a value that is no dotted path."""
    if not is_import_path(value):
        raise UserError(
            f"{key}: {value!r} is no import path; write it as package.module.Name, with the module in the "
            "working folder or in an installed package"
        )


def described(key: str, path: str) -> str:
    """Returns the version and the digest of the code behind an import path, as in
    "mypkg 1.2, sha256 0f1e2d3c4b5a of 3 files".

    In a folder of one's own the digest is of the top-level package, or module, and of the others there that
    it imports, and theirs: their Python files, and the native ones of packages. For an installed package it
    is of the package's Python files and of the list of all its files that its installer has left, with their
    hashes. A namespace package that lies in several places has a digest of each.

    Raises UserError where there is no such package or module.
    """
    check_import_path(key, path)
    name = path.partition(".")[0]
    spec = _spec(key, path, name)
    places = [Path(place) for place in spec.submodule_search_locations or []]
    if not places and not spec.has_location:
        raise UserError(f"{key}: {path}: {name} is built into Python; name code that has a source")
    if (not places and not Path(str(spec.origin)).is_file()) or not all(map(Path.is_dir, places)):
        raise UserError(f"{key}: {path}: {name} lies in an archive ({spec.origin}); unpack or install it")
    roots = dict.fromkeys(place.parent for place in places or [Path(str(spec.origin))])
    return "; ".join(_described_in(root, name) for root in roots)


def refuse_changed(code: Mapping[str, str]) -> None:
    """Raises UserError where a run's own code is not what it was when the run was composed, or when an
    earlier run of this process imported it: Python would go on with that.

    code: what `described` returned, by import path.
    """
    for path, before in code.items():
        if (now := described("code", path)) != before:
            raise UserError(
                f"{path}: the code has changed since this run was composed ({before} then, {now} now); "
                "start the command again, for a run of its own, or put the old code back"
            )
        name = path.partition(".")[0]
        first = _at_first_run.get(name, now) if name in sys.modules else now
        if first != now:
            raise UserError(
                f"{path}: the code has changed since this process imported it ({first} then, {now} now), and "
                "Python would run the old one; start a new process, or restart the notebook's kernel"
            )
        _at_first_run[name] = first


def _spec(key: str, path: str, name: str) -> ModuleSpec:
    search_here()
    if name == "__main__":
        raise UserError(
            f"{key}: {path}: is of the program or notebook itself, which no run can import; put it into a "
            "file beside it, and name that"
        )
    if name in sys.stdlib_module_names - set(sys.builtin_module_names):
        raise UserError(
            f"{key}: {path}: {name} is a module of Python itself, which hides one of yours; give yours "
            "another name"
        )
    try:
        spec = find_spec(name)
    except (ImportError, ValueError, AttributeError) as error:
        raise UserError(f"{key}: {path}: {name} cannot be found ({error_line(error)})") from None
    if spec is None:
        raise UserError(
            f"{key}: {path}: there is no module {name} in the working folder ({Path.cwd()}) or among the "
            "installed packages; start the command where it lies, or install it"
        )
    return spec


def _described_in(root: Path, name: str) -> str:
    if any(root.glob("*.dist-info")):
        return _installed(name, root)
    files = sorted(_with_imported(name, root))
    return f"{_version(name)}, {_digest(files, root)}"


@cache  # a process sees one state of what is installed
def _installed(name: str, root: Path) -> str:
    package, module = root / name, root / f"{name}.py"
    files = sorted(package.rglob("*.py")) if package.is_dir() else [module] * module.is_file()
    owners = _owners(name)
    listed = "".join(distribution(owner).read_text("RECORD") or "" for owner in owners)
    known = {file: digest for owner in owners for file, digest in _as_installed(owner).items()}
    return f"{_version(name)}, {_digest(files, root, listed, known)}"


def _as_installed(owner: str) -> dict[Path, bytes]:
    """The sha256 of each file that is as its installer left it: of the size that is on record, and not
    written after the record. To read the files of a package such as torch takes many seconds."""
    files = distribution(owner).files or []
    record = next((Path(str(each.locate())) for each in files if each.name == "RECORD"), None)
    if record is None or not record.is_file():
        return {}
    written = record.stat().st_mtime
    digests = {}
    for each in files:
        if each.suffix == ".py" and each.hash and each.hash.mode == "sha256":
            file = Path(str(each.locate()))
            told = file.stat() if file.is_file() else None
            if told and told.st_size == each.size and told.st_mtime <= written:
                digests[file] = urlsafe_b64decode(each.hash.value + "==")
    return digests


@cache
def _owners(name: str) -> list[str]:
    """The distributions that a top-level name is of; to look them up takes 0.2 s among 180 of them."""
    return [*dict.fromkeys(packages_distributions().get(name, ()))]


def _version(name: str) -> str:
    versions = [f"{owner} {distribution(owner).version}" for owner in _owners(name)]
    return " and ".join(versions) or f"{name} of a folder"


def _digest(
    files: list[Path], root: Path, listed: str = "", known: Mapping[Path, bytes] = MappingProxyType({})
) -> str:
    digest = hashlib.sha256(listed.encode())
    for file in files:
        digest.update(f"{file.relative_to(root).as_posix()}\0".encode())
        digest.update(known.get(file) or _source(file).digest)
    return f"sha256 {digest.hexdigest()[:12]} of {len(files)} file{'s' * (len(files) != 1)}"


def _with_imported(name: str, root: Path) -> set[Path]:
    """The files of a top-level module or package of `root`, and of those there that it leads to."""
    files: set[Path] = set()
    waiting, seen = [name], {name}
    while waiting:
        own = list(_files_of(waiting.pop(), root))
        files.update(own)
        imported = {other for file in own for other in _source(file).imports}
        waiting += imported - seen
        seen |= imported
    return files


def _files_of(name: str, root: Path) -> Iterator[Path]:
    if (module := root / f"{name}.py").is_file():
        yield module
    elif (root / name).is_dir():
        for folder, below, files in os.walk(root / name):
            below[:] = [each for each in below if each != "__pycache__" and not each.startswith(".")]
            yield from (Path(folder, file) for file in files if file.endswith((".py", *_NATIVE)))


class _Source(NamedTuple):
    digest: bytes
    imports: frozenset[str]  # top-level names


def _source(file: Path) -> _Source:
    """What is known of a file, read again where it has changed: a sweep asks for each of its runs."""
    told = file.stat()
    return _read(file, (told.st_ino, told.st_size, told.st_mtime_ns, told.st_ctime_ns))


@lru_cache(maxsize=10_000)
def _read(file: Path, state: tuple[int, ...]) -> _Source:
    content = file.read_bytes()
    imports = frozenset(_imported_by(content) if file.suffix == ".py" else ())
    return _Source(hashlib.sha256(content).digest(), imports)


def _imported_by(source: bytes) -> Iterator[str]:
    """The top-level names that a source imports; none where it does not parse, which importing it says."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
