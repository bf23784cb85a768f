"""Debian's Chromium for tests: `page`, of a browser of its own, and `seen`, what went wrong on it.

from chromium import Seen; mark the test `browser`; page.goto(file.as_uri()); assert seen.errors == []
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, expect, sync_playwright

INSTALL = "apt-get install -y --no-install-recommends chromium"
_PATIENCE_MS = 60_000  # a shared machine may be slow
_SIZE = {"width": 1600, "height": 1000}  # CSS pixels


@dataclass
class Seen:
    """What the browser told of one page, in the order in which it came."""

    # They are the errors on the console, and exceptions that no script caught.
    errors: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)  # addresses that did not load, or with 400 and more
    requests: list[str] = field(default_factory=list)  # every address that was asked for


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip(f"no Chromium here; as root: {INSTALL}")
    expect.set_options(timeout=_PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])  # we may be root
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page without history, cookies or storage."""
    context = browser.new_context(viewport=_SIZE)
    context.set_default_timeout(_PATIENCE_MS)
    yield context.new_page()
    context.close()


@pytest.fixture
def seen(page: Page) -> Seen:
    seen = Seen()

    def said(message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith("Failed to load resource"):  # in `failed`
            seen.errors.append(message.text)

    def answered(response: Response) -> None:
        if response.status >= 400:
            seen.failed.append(response.url)

    def failed(request: Request) -> None:
        seen.failed.append(request.url)

    page.on("console", said)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("response", answered)
    page.on("requestfailed", failed)
    page.on("request", lambda request: seen.requests.append(request.url))
    return seen
