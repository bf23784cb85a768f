"""A report on paper, in the dark and by its anchors, in a real browser; its runs are generated."""

from pathlib import Path

import pytest
from playwright.sync_api import Page

from pmexp_analysis.report import main
from run_folders import Runs

pytestmark = [pytest.mark.browser, pytest.mark.slow]
_A4 = {"width": 688, "height": 1017}  # CSS pixels inside of margins of 14 mm
_NAMES = ("baseline", "pm-drop-recompute-with-a-rather-long-name", "no-cache", "4bit")
_CUT = """() => [...document.querySelectorAll("table, td, th, img, p, div, dd, pre")].filter(
    one => one.checkVisibility() && (one.getBoundingClientRect().right > document.documentElement.clientWidth + 1
    || one.getBoundingClientRect().left < 0 || one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 0
    && getComputedStyle(one).display != "inline")).map(one => one.tagName + ": " + one.innerText.slice(0, 60))"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns the address of the report on an experiment with ten columns of results, twenty comparisons and a missing run."""
    tmp_path = tmp_path_factory.mktemp("printed")
    runs = Runs(tmp_path / "runs")
    for seed in range(3):
        for place, variant in enumerate(_NAMES):
            finals = {
                "test/accuracy": 0.9123 + seed / 100 + place * (seed % 2) / 360,
                "test/f1": 0.8123 + seed / 90 - place * (seed % 2) / 360,
                "memory/mask_bytes_per_element": 4.0 / (1 + place),
                "memory/saved_bytes": (10000.123 - place) * 2**20,
                "memory/peak_bytes": 527e8 + 1e5 * seed * place,
                "speed/step_ms": 29.7 + seed - place * 1.01**seed,
                "speed/samples_per_s": 1096.0 + 31 * seed - place * seed,
            }
            runs.finished(variant, seed, finals)
    failure = {"status": "failed", "error": "MemoryError: no room", "log": "log.txt"}
    runs.unfinished(_NAMES[1], 3, failure=failure)
    given = ["demo", f"runs_dir={runs.root}", f"out={tmp_path / 'reports'}", "figures=1"]
    assert main(given) == 0
    return (tmp_path / "reports" / "demo" / "index.html").as_uri()


def test_nothing_is_cut_on_a4_and_what_is_folded_is_printed(address: str, page: Page, tmp_path: Path) -> None:
    page.goto(address)
    assert not page.get_by_text("bootstrap 95%", exact=True).first.is_visible()  # a long table is folded
    page.emulate_media(media="print")
    page.set_viewport_size(_A4)  # type: ignore[arg-type]
    assert page.evaluate(_CUT) == []
    shown = page.evaluate("[...document.querySelectorAll('.comparisons td')].map(one => one.clientHeight)")
    assert len(shown) >= 17 * 12 and sum(height > 0 for height in shown) > len(shown) / 2
    pdf = page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF") and b"/MediaBox [0 0 594.9" in pdf.replace(b"[0 0 595", b"[0 0 594.9")


def test_the_page_is_dark_where_a_reader_wants_it_and_figures_keep_their_white(
    address: str, page: Page
) -> None:
    def colours() -> tuple[int, int, int]:
        """How light ink, paper and the ground of the figures are, of 765."""
        colours = page.evaluate(
            """[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor,
            getComputedStyle(document.querySelector("figure img")).backgroundColor]"""
        )
        ink, paper, figures = (sum(map(int, colour[4:-1].split(","))) for colour in colours)
        return ink, paper, figures

    page.goto(address)
    ink, paper, figures = colours()
    assert ink < 150 < 700 < paper and figures == 765
    page.emulate_media(color_scheme="dark")
    ink, paper, figures = colours()
    assert paper < 150 < 600 < ink and figures == 765
    page.emulate_media(color_scheme="dark", media="print")
    ink, paper, figures = colours()
    assert ink < 150 < 700 < paper  # no sheet of black ink


def test_contents_lead_to_every_section_and_words_are_explained(address: str, page: Page) -> None:
    page.goto(address)
    links = page.locator("nav a")
    for place in range(links.count()):
        target = links.nth(place).get_attribute("href") or ""
        links.nth(place).click()
        assert page.locator(target).is_visible()
    assert page.get_by_text("MemoryError: no room").is_visible()  # a missing run
    words = page.locator("#words dt").all_inner_texts()
    assert (
        {"baseline", "Holm p", "throughput", "d"} <= set(words) and "TOST p" in words and "oom" not in words
    )
