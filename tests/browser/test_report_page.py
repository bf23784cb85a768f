"""The report of real runs in a real browser: the verdict at once, all figures, no network."""

from urllib.parse import urlsplit

import pytest
from chromium import Seen
from playwright.sync_api import Page, expect

from pmexp_analysis.report import main
from small_runs import Runs

pytestmark = [pytest.mark.browser, pytest.mark.slow]
_SHORT = ["tracking=off", "train.max_steps=2", "train.threads=1"]
_SCREEN = {"width": 1280, "height": 800}  # CSS pixels, of a laptop
_TELEPHONE = {"width": 400, "height": 800}


@pytest.mark.parametrize(
    ("name", "sweep", "finished"),
    [
        ("demo", ["experiment=demo", "seed=0,1"], 10),
        (
            "exp-1-main-perf-smoke",
            [
                "experiment=exp-1-main-perf",
                "smoke=true",
                "variant=baseline,pm-drop",
                "task=smoke/tinybert-mrpc",
            ],
            2,
        ),
        (
            "exp-2-system-scale-smoke",
            [
                "experiment=exp-2-system-scale",
                "smoke=true",
                "task=smoke/vit-imagenet",
                "arm=baseline-zero2,pm-drop-zero2",
            ],
            2,
        ),
    ],
)
def test_a_report_shows_its_verdict_at_once_and_needs_no_network(
    name: str, sweep: list[str], finished: int, runs: Runs, few_news: str, page: Page, seen: Seen
) -> None:
    runs.folder = runs.folder.with_name("runs_in_a_folder_with_a_name_longer_than_a_line")
    of_texts = [few_news] if "task=smoke/tinybert-mrpc" in sweep else []
    assert runs.train("-m", *sweep, *_SHORT, *of_texts)[0] == 0
    runs.name = name
    metrics = {metric for summary in runs.summaries().values() for metric in summary["metrics"]}
    assert "fgsm/top5" in metrics or "exp-2" not in name
    reports = runs.folder.parent / "reports"
    assert main([name, "--runs-dir", str(runs.folder), "--out", str(reports), "--figures", "1"]) == 0
    page.set_viewport_size(_SCREEN)  # type: ignore[arg-type]
    page.goto((reports / name / "index.html").as_uri())
    verdict = page.locator("#verdict")
    expect(verdict).to_contain_text("Are all claims met?")
    place = verdict.bounding_box()
    assert place and place["y"] + place["height"] < _SCREEN["height"]  # seen without scrolling
    expect(page.get_by_text(f"{finished} finished runs")).to_be_visible()
    images = page.locator("figure img")
    assert images.count() >= 5
    drawn = images.evaluate_all("all => all.map(one => one.complete && one.naturalWidth > 0)")
    assert all(drawn)
    page.set_viewport_size(_TELEPHONE)  # type: ignore[arg-type]
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0  # wide tables scroll by themselves
    assert seen.errors == [] and seen.failed == []
    assert {urlsplit(url).scheme for url in seen.requests} <= {"file", "data"}
