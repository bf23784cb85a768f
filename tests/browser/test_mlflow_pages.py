"""MLflow's pages of real runs, as `make ui` opens them: a sweep, its runs, and the comparison of some."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from chromium import Seen
from playwright.sync_api import Page, expect

from small_runs import TINY_VIT, Runs
from tracked_runs import free_port

pytestmark = [pytest.mark.browser, pytest.mark.slow]
_COLUMNS = ["variant", "system", "model", "dataset", "seed"]
_SHOWN = ["final/test/accuracy", "final/memory/saved_bytes"]  # in the table
_KNOWN = "/ajax-api/2.0/mlflow/users/current"  # not there where nobody logs in, and MLflow asks for it
_CELLS_BY_TOP = """grid => {
    const rows = {};
    for (const cell of grid.querySelectorAll("[role=rowgroup] > *"))
        (rows[cell.style.top] ??= []).push(cell.innerText.trim());
    return rows;
}"""


def cell(page: Page, row: int, column: str) -> str:
    return page.locator(f'[row-index="{row}"] [col-id="{column}"]').inner_text()


def test_a_sweep_is_a_table_of_its_runs_and_some_are_compared(
    runs: Runs, database: Callable[[Path], Path], page: Page, seen: Seen
) -> None:
    database(runs.folder)
    for seed in (0, 1):
        for variant in ("baseline", "pm-drop"):
            assert runs.train(*TINY_VIT, "train.max_steps=4", f"variant={variant}", f"seed={seed}")[0] == 0
    page.set_viewport_size({"width": 2200, "height": 1000})  # tables draw the columns and rows in sight
    command = ["default", "--runs-dir", str(runs.folder), "--port", str(free_port())]
    with subprocess.Popen(
        [sys.executable, "-m", "pmexp.tracking.ui", *command],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "DISPLAY": "", "WAYLAND_DISPLAY": ""},
        # one that a job in the background starts would ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as server:
        try:
            assert server.stdout
            page.goto(server.stdout.readline().strip())
            look_at_the_table(page)
            compare(page, runs)
        finally:
            server.send_signal(signal.SIGINT)
            try:
                code = server.wait(timeout=60)
            except subprocess.TimeoutExpired:
                server.kill()
                raise
        assert code == 0
    assert seen.errors == [] and {urlsplit(url).path for url in seen.failed} <= {_KNOWN}
    assert {urlsplit(url).hostname for url in seen.requests if url.startswith("http")} == {"127.0.0.1"}


def look_at_the_table(page: Page) -> None:
    """The parent alone, then with its children below it."""
    expect(page.get_by_text("5 matching runs")).to_be_visible()
    expect(page.locator(".ag-center-cols-container [role=row]")).to_have_count(1)
    for name in _COLUMNS:
        expect(page.locator(f".ag-header-cell[col-id='tags.`{name}`']")).to_be_visible()
    for metric in _SHOWN:
        expect(page.locator(f".ag-header-cell[col-id='metrics.`{metric}`']")).to_be_visible()
    assert cell(page, 0, "tags.`variant`") == "baseline, pm-drop"
    page.locator(".ag-row button:visible").first.click()
    expect(page.locator(".ag-center-cols-container [role=row]")).to_have_count(5)
    children = {tuple(cell(page, row, f"tags.`{name}`") for name in _COLUMNS) for row in range(1, 5)}
    assert children == {
        (variant, "plain", "vit-digits", "digits", seed)
        for variant in ("baseline", "pm-drop")
        for seed in "01"
    }


def compared_metrics(page: Page) -> dict[str, list[str]]:
    """What the comparison shows of each metric, a run a column: a grid of names beside one of values, each of
    which draws the rows in sight alone and places them by `top`. The names follow where the values scroll to."""
    names, values = page.get_by_role("grid").all()
    rows: dict[str, list[str]] = {}
    for top in range(0, int(values.evaluate("grid => grid.scrollHeight")), 200):
        values.evaluate("(grid, top) => { grid.scrollTop = top }", top)
        page.wait_for_timeout(300)
        drawn: list[dict[str, list[str]]] = [grid.evaluate(_CELLS_BY_TOP) for grid in (names, values)]
        rows |= {name: drawn[1][place] for place, [name] in drawn[0].items() if place in drawn[1]}
    return rows


def compare(page: Page, runs: Runs) -> None:
    chosen = [row for row in range(1, 5) if cell(page, row, "tags.`seed`") == "1"]
    names = [f"{cell(page, row, 'tags.`variant`')}-s1" for row in chosen]
    for row in chosen:
        page.locator(f'[row-index="{row}"] input.ag-checkbox-input').check()
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_text("Comparing 2 Runs from 1 Experiment")).to_be_visible()
    rows = compared_metrics(page)
    for metric in _SHOWN:
        values = [runs.summaries()[run]["metrics"][metric.removeprefix("final/")] for run in names]
        assert [float(value) for value in rows[metric]] == pytest.approx(values, abs=0.0005)  # three decimals
