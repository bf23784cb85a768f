"""An experiment with a run in each state."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from demo_experiment import STATES, Demo, failure, summary


@pytest.fixture
def demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Demo]:
    demo = Demo(tmp_path / "runs", capsys)
    with ExitStack() as claims:
        claims.enter_context(demo.run("running").claimed())
        demo.run("finished", steps=40, summary=summary())
        demo.run("oom", steps=0, summary=summary("oom", error="OutOfMemoryError: no room"))
        demo.run("failed", failure=failure("failed", "ValueError: \x1b[31mno"))
        demo.run("interrupted", failure=failure("interrupted", "SIGTERM at step 5"))
        demo.run("stale")
        demo.plan(**{state: "pm-drop" if state in ("failed", "stale") else "baseline" for state in STATES})
        yield demo
