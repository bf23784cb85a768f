"""Builds the C++ core, and the description that a package index shows. All else is in pyproject.toml.

The core is plain C++ behind a C interface: its build needs neither torch nor Python headers, and one wheel
serves every Python of a platform. Without a compiler the package installs all the same and says here what
that means; `pmexp.packed_dropout.backend` and the record of every run then name the torch reference.
"""

import re
import sys
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

FOLDER = "src/pmexp/packed_dropout/cpu"
ROOT = Path(__file__).parent


def description() -> str:
    """Returns README.md for a package index, where links into the source tree lead nowhere: their words stay,
    pictures go."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"^!\[[^]]*\]\((?!https?:)[^)]*\)\n+", "", text, flags=re.MULTILINE)
    return re.sub(r"\[([^]]+)\]\((?!https?:)[^)]*\)", r"\1", text)


class WheelOfAnyPython(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


class OptionalBuild(build_ext):
    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", "/") + ".so"  # without the name of a Python in it

    def run(self) -> None:
        for library in glob(f"{FOLDER}/_core.*.so"):  # of older builds, which Python would look for first
            Path(library).unlink()
        super().run()

    def build_extension(self, extension: Extension) -> None:
        try:
            super().build_extension(extension)
        except Exception as error:
            print(
                f"pmexp: the C++ core was NOT built ({error}). Packed dropout will run on the torch "
                "reference, many times slower. Install a C++17 compiler (Debian: apt-get install g++) and "
                "install pmexp again; CXX=<path> chooses another one.",
                file=sys.stderr,
            )


core = Extension(
    "pmexp.packed_dropout.cpu._core",
    sorted(glob(f"{FOLDER}/*.cpp")),
    depends=sorted(glob(f"{FOLDER}/*.h")),
    language="c++",
    extra_compile_args=[
        *("-O3", "-g0", "-std=c++17", "-fvisibility=hidden", "-pthread"),
        "-ffp-contract=off",  # a fused multiply-add would round once where the definition rounds twice
        *("-fno-math-errno", "-fno-trapping-math"),  # or a square root and a choice are not made of vectors
    ],
    extra_link_args=["-pthread"],
)
setup(
    ext_modules=[core],
    cmdclass={"build_ext": OptionalBuild, "bdist_wheel": WheelOfAnyPython},
    long_description=description(),
    long_description_content_type="text/markdown",
)
