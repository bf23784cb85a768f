"""A variant that trains other parameters than the baseline is named before any of its savings are believed."""

import pytest

from run_folders import Runs


@pytest.mark.parametrize(("own", "axis", "named"), [(40, "variant", 1), (1004, "variant", 0), (40, "arm", 0)])
def test_gradients_of_other_bytes_are_named(own: float, axis: str, named: int, runs: Runs) -> None:
    for seed in range(2):
        for variant, size in (("baseline", 1000), ("pm-drop", own)):
            finals = {"memory/gradients_bytes": float(size), "test/accuracy": 0.9}
            runs.finished(variant, seed, finals, protocol={"method": "pm-drop", "axis": axis})
    content = runs.content()
    lines = [line for line in content.warnings if "gradients of pm-drop take 40 bytes where" in line]
    assert len(lines) == named and all("baseline take 1,000 (seeds 0 and 1)" in line for line in lines)
