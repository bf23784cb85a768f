"""Two processes whose weights part are told so, at the first step."""

from pathlib import Path

import pytest

import parting_ranks


@pytest.mark.parametrize("part", [False, True])
def test_processes_with_different_weights_are_told_all_of_them(part: bool, tmp_path: Path) -> None:
    for told in parting_ranks.run(tmp_path, part):
        assert told.startswith("system.parts: ddp: the processes hold different weights" if part else "")
        assert bool(told) is part
