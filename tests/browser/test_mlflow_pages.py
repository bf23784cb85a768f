"""MLflow's pages of real runs, as `make ui` opens them: a sweep, its runs, and the comparison of some."""

import json
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

from forked_python import ForkedPython
from small_runs import TINY_VIT, Runs
from tracked_runs import free_port

pytestmark = [pytest.mark.browser, pytest.mark.slow]
_COLUMNS = ["tags.`variant`", "params.`train.lr`", "tags.`seed`"]
_SHOWN = ["final/test/accuracy", "MiB/saved"]  # in the table
_RATES = ("0.001", "0.004")
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
    # Workers train, since a fork of a process that has the database open cannot read it.
    swept = ["variant=baseline,pm-drop", f"train.lr={','.join(_RATES)}"]
    assert runs.train("-m", *TINY_VIT, "train.max_steps=4", *swept)[0] == 0
    page.set_viewport_size({"width": 2200, "height": 1000})  # tables draw the columns and rows in sight
    command = ["default", "--runs-dir", str(runs.folder), "--port", str(free_port())]
    with ForkedPython(
        [sys.executable, "-m", "pmexp.tracking.ui", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "DISPLAY": "", "WAYLAND_DISPLAY": ""},
    ) as server:
        try:
            assert server.stdout and server.stderr
            assert server.stderr.readline() == "starting MLflow ...\n"
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
    """All runs and their parent, by variant, with what they differ in and what they reached."""
    expect(page.get_by_text("5 matching runs")).to_be_visible()
    expect(
        page.get_by_role("heading", name="Runs", exact=True)
    ).to_be_visible()  # not those of language models
    expect(page.locator(".ag-center-cols-container [role=row]")).to_have_count(5)
    for column in [*_COLUMNS, *(f"metrics.`{metric}`" for metric in _SHOWN)]:
        expect(page.locator(f".ag-header-cell[col-id='{column}']")).to_be_visible()
    told = [tuple(cell(page, row, column) for column in _COLUMNS) for row in range(5)]
    assert told[2] == ("baseline, pm-drop", "-", "0")
    assert {*told[:2]} == {("baseline", rate, "0") for rate in _RATES}
    assert {*told[3:]} == {("pm-drop", rate, "0") for rate in _RATES}


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
    chosen = [row for row in range(5) if cell(page, row, "params.`train.lr`") == _RATES[1]]
    variants = [cell(page, row, "tags.`variant`") for row in chosen]
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in runs.run_folders()]
    metrics = {
        summary["labels"]["variant"]: summary["metrics"]
        | {"MiB/saved": summary["metrics"]["memory/saved_bytes"] / 2**20}
        for summary in summaries
        if summary["settings"]["train.lr"] == float(_RATES[1])
    }
    for row in chosen:
        page.locator(f'[row-index="{row}"] input.ag-checkbox-input').check()
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_text("Comparing 2 Runs from 1 Experiment")).to_be_visible()
    rows = compared_metrics(page)
    for metric in _SHOWN:
        values = [metrics[variant][metric.removeprefix("final/")] for variant in variants]
        assert [float(value) for value in rows[metric]] == pytest.approx(values, abs=0.0005)  # three decimals
