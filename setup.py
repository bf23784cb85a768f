"""Builds the C++ core. All else about the package is in pyproject.toml.

The core is plain C++ behind a C interface: its build needs neither torch nor Python headers. Without a
compiler the package installs all the same and says here what that means; `pmexp.packed_dropout.backend` and
the record of every run then name the torch reference.
"""

import sys
from glob import glob

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FOLDER = "src/pmexp/packed_dropout/cpu"


class OptionalBuild(build_ext):
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
        *("-O3", "-std=c++17", "-fvisibility=hidden", "-pthread"),
        "-ffp-contract=off",  # a fused multiply-add would round once where the definition rounds twice
        *("-fno-math-errno", "-fno-trapping-math"),  # or a square root and a choice are not made of vectors
    ],
    extra_link_args=["-pthread"],
)
setup(ext_modules=[core], cmdclass={"build_ext": OptionalBuild})
