"""The page in Debian's Chromium, on the model that ships and the recording that ships: by keyboard, at two widths."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import needs
import pytest
from needs import needed

sync_api = needed("playwright.sync_api", "needs Playwright: pip install playwright")
axe = needed("axe_playwright_python.sync_playwright", "needs axe-core: pip install axe-playwright-python")
needed("uvicorn", "needs uvicorn: pip install uvicorn")

ROOT = Path(__file__).resolve().parents[1]
BAG = ROOT / "fvs_ros" / "assets" / "patrol_bag"
PATIENCE_MS = 60_000
# Importing torch and loading the model take a minute on a busy machine.
LOADING_S = 240.0
QUESTION = "Which rooms did you visit, in order?"
CONNECTED = "['waiting', 'good'].includes(document.querySelector('#status').dataset.kind)"
WIDTHS = [(1280, 900), (360, 740)]


@contextmanager
def served(*arguments: str, **variables: str) -> Iterator[str]:
    """`fvs web` in a process of its own, on a free port, and its URL."""
    command = [sys.executable, "-m", "fvs_ros.cli", "web", *arguments, "--listen", "0"]
    with subprocess.Popen(command, env={**os.environ, **variables}, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            told = ""
            for line in process.stderr:
                told += line
                if found := re.search(r"fvs web: (http://127\.0\.0\.1:\d+/)", line):
                    yield found[1]
                    break
            else:
                raise AssertionError(told)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)


def wait_for_memory(url: str) -> None:
    deadline = time.monotonic() + LOADING_S
    while True:
        with urlopen(f"{url}api/state", timeout=LOADING_S) as response:
            state = json.load(response)
        if state.get("steps", 0) > 2:
            return
        assert time.monotonic() < deadline, f"the patrol is not in memory: {state}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The page on the patrol that ships, eight times as fast as it was recorded."""
    with served(str(BAG), "--device", "cpu", "--rate", "8") as url:
        wait_for_memory(url)
        yield url


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    found = needs.chromium()
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Tab:
    """A page, what it logged, and whom it asked."""

    def __init__(self, chromium: Any, width: int, height: int, scheme: str = "light") -> None:
        self.context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.logged: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("console", lambda message: self.logged.append(message.text))
        self.page.on("pageerror", lambda error: self.logged.append(str(error)))
        self.page.on("request", self._on_request)

    def text(self, selector: str) -> str:
        return str(self.page.text_content(selector))

    def wait(self, condition: str) -> None:
        """Waits for a condition; `wait_for_function` would evaluate it within the page, whose policy forbids that."""
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while not self.page.evaluate(condition):
            assert time.monotonic() < deadline, f"it never came true: {condition}"
            self.page.wait_for_timeout(50)

    def _on_request(self, request: Any) -> None:
        # A blob is a picture that is here already.
        if urlsplit(request.url).scheme != "blob":
            self.hosts.add(urlsplit(request.url).netloc)


@contextmanager
def opened(chromium: Any, url: str, width: int = 1280, height: int = 900, scheme: str = "light") -> Iterator[Tab]:
    tab = Tab(chromium, width, height, scheme)
    tab.page.goto(url)
    try:
        yield tab
    finally:
        tab.context.close()


@pytest.mark.parametrize(("width", "height"), WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_question_is_asked_by_keyboard_and_answered_with_pictures(
    chromium: Any, url: str, width: int, height: int, scheme: str
) -> None:
    with opened(chromium, url, width, height, scheme) as tab:
        tab.page.wait_for_selector("#camera-picture:not([hidden])")
        tab.wait("document.querySelector('#camera-picture').naturalWidth > 0")
        # The first stop is the link past the head, the second the question.
        tab.page.keyboard.press("Tab")
        tab.page.keyboard.press("Tab")
        assert tab.page.evaluate("document.activeElement.id") == "question"
        assert tab.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        tab.wait("Number(document.querySelector('#keyframe').max) > 2")
        # Each token sets the class after the text. On a busy machine several come at once: an observer would miss them.
        tab.page.evaluate(
            """() => {
                window.seen = [];
                const text = document.querySelector("#answer-text");
                Object.defineProperty(text, "className", {
                    get: () => text.getAttribute("class") ?? "",
                    set: (kind) => {
                        window.seen.push([kind, text.textContent]);
                        text.setAttribute("class", kind);
                    },
                });
            }"""
        )
        tab.page.keyboard.type(QUESTION)
        tab.page.keyboard.press("Enter")
        tab.page.wait_for_selector("#answer-facts:not([hidden])")
        answer = tab.text("#answer-text")
        coming = {text for kind, text in tab.page.evaluate("window.seen") if kind == "coming"}
        assert len(coming) > 1, "the answer came in one piece"
        assert all(answer.startswith(text) for text in coming)
        assert "of such answers" in tab.text("#sure-text")
        tab.wait("[...document.querySelectorAll('#moments img')].some(image => image.naturalWidth > 0)")
        assert all("seen" in str(image.get_attribute("alt")) for image in tab.page.query_selector_all("#moments img"))
        assert tab.page.get_attribute("#answer-text", "aria-busy") is None
        # The timeline, by the arrow keys.
        before = tab.page.get_attribute("#keyframe", "aria-valuetext")
        tab.page.focus("#keyframe")
        tab.page.keyboard.press("Home")
        tab.wait(f"document.querySelector('#keyframe').getAttribute('aria-valuetext') !== {before!r}")
        tab.page.wait_for_selector("#kept-picture:not([hidden])")
        found = axe.Axe().run(tab.page).response["violations"]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
        assert tab.page.evaluate("document.documentElement.scrollWidth") == width
        assert tab.logged == []
        assert tab.hosts == {urlsplit(url).netloc}


def test_escape_cancels_and_the_box_can_be_used_again(chromium: Any, url: str) -> None:
    with opened(chromium, url) as tab:
        tab.page.wait_for_selector("#camera-picture:not([hidden])")
        # The answer is held up on its way here.
        tab.page.route("**/api/ask", lambda route: None)
        tab.page.fill("#question", QUESTION)
        tab.page.keyboard.press("Enter")
        tab.page.wait_for_selector("#cancel:not([hidden])")
        tab.page.keyboard.press("Escape")
        tab.page.wait_for_selector("#cancel[hidden]", state="attached")
        assert tab.text("#answer-text") == "cancelled"
        tab.page.unroute("**/api/ask")
        tab.page.keyboard.press("Enter")
        tab.page.wait_for_selector("#answer-facts:not([hidden])")


def test_what_a_model_says_is_text_and_never_markup(chromium: Any, url: str) -> None:
    with opened(chromium, url) as tab:
        tab.page.wait_for_selector("#camera-picture:not([hidden])")
        order = "<img src=x onerror=document.title='followed'><script>document.title='followed'</script>"
        line = f'{{"error": "{order}", "code": ""}}\n'
        tab.page.route("**/api/ask", lambda route: route.fulfill(body=line, content_type="application/x-ndjson"))
        tab.page.fill("#question", order)
        tab.page.keyboard.press("Enter")
        tab.wait("document.querySelector('#answer-text').className === 'failed'")
        assert tab.text("#answer-text") == tab.text("#asked") == order
        assert tab.page.query_selector("#answer img, #answer script") is None
        assert tab.page.title() == "Robot memory"


def test_two_tabs_are_answered_at_once(chromium: Any, url: str) -> None:
    with opened(chromium, url) as one, opened(chromium, url) as other:
        for tab in (one, other):
            tab.page.wait_for_selector("#camera-picture:not([hidden])")
            tab.page.fill("#question", QUESTION)
        for tab in (one, other):
            tab.page.keyboard.press("Enter")
        for tab in (one, other):
            tab.page.wait_for_selector("#answer-facts:not([hidden])")


def test_a_token_is_asked_for_once_and_kept_out_of_the_address(chromium: Any) -> None:
    token = "0123456789abcdef"
    with served(str(BAG), "--device", "cpu", "--rate", "8", FVS_WEB_TOKEN=token) as url, opened(chromium, url) as tab:
        tab.page.wait_for_selector("#token-dialog[open]")
        assert tab.page.evaluate("document.activeElement.id") == "token"
        assert tab.text("#status") == "a token is needed"
        tab.page.keyboard.type(token)
        tab.page.keyboard.press("Enter")
        tab.wait(CONNECTED)
        with opened(chromium, f"{url}#token={token}") as another:
            another.wait(CONNECTED)
            assert another.page.url == url
            assert another.logged == []
