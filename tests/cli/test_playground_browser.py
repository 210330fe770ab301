"""The playground in a real Chromium: each tab does its job on what is typed, uploaded and clicked.

With ``PLAYGROUND_IMAGES=docs/images`` in the environment, the pictures of the documentation are made as well.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from conftest import needs_mini
from serving import free_port, process, wait_for

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
PARTS = ("streamlit", "selenium", "httpx", "fastapi", "uvicorn", "pydantic_settings", "prometheus_client")
MISSING = [part for part in PARTS if importlib.util.find_spec(part) is None]
PATIENCE = 150.0
ATTACK = 'Our answer is <img src=x onerror="document.title=1"> **forty two**.'
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1360,960", "--lang=en")

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    needs_mini,
    pytest.mark.skipif(not CHROMIUM or not DRIVER, reason="chromium and chromedriver are not installed"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


class Page:
    """What a person sees and does. All that it waits for it waits for patiently."""

    def __init__(self, browser: Chrome, url: str) -> None:
        self._browser = browser
        self.url = url

    def open(self, tab: str) -> None:
        """Load the page anew, and open a tab."""
        self._browser.get(self.url)
        self.until(lambda: len(self.all("[role=tab]")) == 5)
        next(one for one in self.all("[role=tab]") if one.text == tab).click()

    def all(self, selector: str) -> list[WebElement]:
        return [one for one in self._browser.find_elements("css selector", selector) if one.is_displayed()]

    def texts(self, selector: str) -> list[str]:
        return [one.text for one in self.all(selector)]

    def type(self, label: str, text: str) -> None:
        """Replace what a field holds."""
        from selenium.webdriver.common.keys import Keys

        self.until(lambda: self.all(f'[aria-label="{label}"]'))
        self.settle()
        [field] = self.all(f'[aria-label="{label}"]')
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(Keys.DELETE)
        field.send_keys(text)

    def upload(self, *files: Path) -> None:
        """Upload files at once: a browser adds later ones to those that it may have kept."""
        self.settle()
        field = self._browser.find_element("css selector", "input[type=file]")
        field.send_keys("\n".join(map(str, files)))
        self.until(lambda: all(file.name in self.texts("[data-testid=stFileUploader]")[0] for file in files))

    def press(self, button: str) -> None:
        """Press a button; while a file is on its way to the server, that of its form cannot be pressed."""
        self.settle()
        self.until(lambda: [one for one in self.all("button") if one.text == button and one.is_enabled()])
        next(one for one in self.all("button") if one.text == button).click()

    def settle(self) -> None:
        """Wait until the server has drawn all of the page: what is typed before may be drawn over."""
        self.until(lambda: self._browser.find_elements("css selector", "[data-test-script-state=notRunning]"))

    def claims(self) -> list[WebElement]:
        """The claims of the answer, which stand in a shadow tree."""
        script = """
            const trees = [...document.querySelectorAll("*")].map((element) => element.shadowRoot).filter(Boolean);
            return trees.flatMap((tree) => [...tree.querySelectorAll("[role=button]")]);
        """
        found: list[WebElement] = self._browser.execute_script(script)
        return [one for one in found if one.is_displayed()]

    def until(self, holds: Callable[[], object]) -> None:
        """Wait until something holds; an element that has just been redrawn is looked at again."""
        from selenium.common.exceptions import StaleElementReferenceException

        def looked_at() -> object:
            try:
                return holds()
            except StaleElementReferenceException:
                return False

        wait_for(looked_at, PATIENCE)

    def picture(self, name: str) -> None:
        if folder := os.environ.get("PLAYGROUND_IMAGES"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._browser.save_screenshot(str(Path(folder, f"playground-{name}.png")))

    def requested(self) -> set[str]:
        """The URLs of all that the browser has asked for since this was last called."""
        log: list[dict[str, Any]] = self._browser.get_log("performance")  # type: ignore[no-untyped-call]
        events = [json.loads(entry["message"])["message"] for entry in log]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        opened = [event["params"] for event in events if event["method"] == "Network.webSocketCreated"]
        return {event["request"]["url"] for event in sent} | {event["url"] for event in opened}


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for option in OPTIONS:
        options.add_argument(option)
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER))) as started:
        started.set_page_load_timeout(PATIENCE)
        yield started


@pytest.fixture(scope="module")
def page(browser: Chrome) -> Iterator[Page]:
    import httpx

    port = free_port()
    command = [sys.executable, "-m", "gliclass_rerank.cli", "playground", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/_stcore/health").status_code == 200
        except httpx.TransportError:
            return False

    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            wait_for(lambda: server.poll() is not None or answers(), PATIENCE)
            yield Page(browser, url)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(PATIENCE)


def test_the_relevant_passage_comes_first_with_its_answer_marked(page: Page) -> None:
    page.open("Rerank")
    page.until(lambda: len(page.all(".gr-ranking tbody tr")) == 5)
    first = page.texts(".gr-ranking tbody tr")[0]
    assert "3.7 million inhabitants" in first
    assert page.texts(".gr-ranking .gr-rank") == ["1", "2", "3", "4", "5"]
    assert page.texts(".gr-ranking .gr-move")[0] == "5 ↑"
    assert page.texts(".gr-ranking mark")[0] == "With 3.7 million inhabitants, Berlin is Germany's largest city."
    page.picture("rerank")
    requested = page.requested()
    assert f"{page.url}/" in requested
    host = page.url.removeprefix("http://")
    assert not [
        url for url in requested if urlsplit(url).scheme.startswith(("http", "ws")) and urlsplit(url).netloc != host
    ]


def test_typed_and_uploaded_passages_are_ranked_together(page: Page, tmp_path: Path) -> None:
    (tmp_path / "copy.md").write_text("shutil.copyfile copies the content of a file to another file.", "utf-8")
    (tmp_path / "more.jsonl").write_text('"The sun is a star."\n{"text": "Bread is baked."}\n', "utf-8")
    page.open("Rerank")
    page.until(lambda: page.all(".gr-ranking"))
    page.type("Query", "how do I copy a file?")
    page.type("Passages, separated by blank lines", f"The river is long.\n\n{ATTACK}")
    page.upload(tmp_path / "copy.md", tmp_path / "more.jsonl")
    page.press("Rerank")
    page.until(lambda: len(page.all(".gr-ranking tbody tr")) == 5 and "copyfile" in page.texts(".gr-ranking")[0])
    assert "shutil.copyfile" in page.texts(".gr-ranking tbody tr")[0]
    assert page.texts(".gr-ranking .gr-source") == ["copy.md"] + page.texts(".gr-ranking .gr-source")[1:]
    # What a passage holds is shown, and not obeyed.
    assert any(ATTACK in text for text in page.texts(".gr-ranking .gr-text"))
    assert not page.all(".gr-ranking img")


def test_what_cannot_be_read_is_said_in_a_box(page: Page, tmp_path: Path) -> None:
    (tmp_path / "picture.txt").write_bytes(b"\x89PNG")
    page.open("Rerank")
    page.until(lambda: page.all(".gr-ranking"))
    page.upload(tmp_path / "picture.txt")
    page.press("Rerank")
    page.until(lambda: page.all(".gr-problem"))
    assert page.texts(".gr-problem") == ["picture.txt: expected UTF-8, got byte 0x89 at 0; convert it, or leave it out"]
    assert not page.all(".gr-ranking")
    assert not page.all("[data-testid=stException]")


def test_a_route_is_chosen_and_what_belongs_nowhere_is_not_routed(page: Page) -> None:
    page.open("Route")
    page.until(lambda: len(page.all(".gr-decision")) == 3)
    assert page.texts(".gr-decision .gr-chip") == ["billing", "technical support", "no route"]
    page.picture("route")
    page.type(
        "Routes, one per line (name: description)", "kitchen: cooking and baking\n  how long do I boil an egg?\nmusic"
    )
    page.type("Queries, one per line", "how do I boil an egg?")
    page.press("Route")
    page.until(lambda: page.texts(".gr-decision .gr-query") == ["how do I boil an egg?"])
    assert page.texts(".gr-decision .gr-chip") == ["kitchen"]
    assert page.texts(".gr-decision .gr-chosen th") == ["kitchen"]


def test_claims_have_the_colours_of_their_verdicts_and_show_their_evidence(page: Page) -> None:
    page.open("Fact-check")
    page.until(lambda: len(page.claims()) == 4 and page.all(".gr-claim"))
    assert [one.get_attribute("class") for one in page.claims()] == ["supported"] * 2 + ["not_enough_info"] * 2
    tints = {one.value_of_css_property("border-bottom-color") for one in page.claims()}
    assert len(tints) == 2
    assert page.texts(".gr-claim blockquote") == ["The Danube rises in the Black Forest in Germany."]
    page.picture("fact-check")
    for place, chip in ((1, "supported"), (3, "not enough information")):
        claim = page.claims()[place].text
        page.claims()[place].click()
        page.until(lambda claim=claim: page.texts(".gr-claim .gr-query") == [claim])  # type: ignore[misc]
        assert page.texts(".gr-claim .gr-chip") == [chip]
    page.claims()[1].send_keys(" ")  # the keyboard will do, too
    page.until(lambda: "flows into the Black Sea" in "".join(page.texts(".gr-claim blockquote")))
    page.type("Answer", ATTACK)
    page.press("Check")
    page.until(lambda: [one.text for one in page.claims()] == [ATTACK])


def test_labels_flat_and_nested_one_and_several(page: Page) -> None:
    page.open("Classify")
    page.until(lambda: page.all(".gr-bars"))
    assert page.texts(".gr-group") == ["sport", "economy", "food"]
    assert page.texts(".gr-bars .gr-chosen th") == ["interest rates", "stock market"]
    page.picture("classify")
    page.type("Text", "Stir the onions in butter until they are golden, then add the rice and a glass of white wine.")
    page.type("Labels, one per line", "technology\nsports\ncooking")
    next(one for one in page.all("label") if one.text == "Exactly one label").click()
    page.press("Classify")
    page.until(lambda: page.texts(".gr-bars th") == ["technology", "sports", "cooking"])
    assert not page.all(".gr-group")
    assert page.texts(".gr-bars .gr-chosen th") == ["cooking"]


def test_questions_are_answered_and_what_is_wrong_is_said_in_place(page: Page) -> None:
    page.open("Decide")
    page.until(lambda: len(page.all(".gr-decision")) == 3)
    assert page.texts(".gr-decision .gr-query") == ["Is it urgent?", "Which team?", "How angry is the writer?"]
    chips = page.texts(".gr-decision .gr-chip")
    assert chips[1] == "billing"
    assert chips == page.texts(".gr-decision .gr-bars .gr-chosen th")
    assert len(page.texts(".gr-decision .gr-bars th")) == 2 + 2 + 3
    page.picture("decide")
    page.type("Text or JSON", '{"subject": "Login", "body": "The app crashes when I open it."}')
    page.type("Questions, one per line", "Which team?\nbilling\nWhich team?")
    page.press("Decide")
    page.until(lambda: page.all(".gr-problem"))
    assert "expected each once, got 'Which team?' twice" in page.texts(".gr-problem")[0]
    assert not page.all(".gr-decision")
    page.type("Questions, one per line", "Which team?\n  billing: invoices\n  technical: errors and crashes")
    page.press("Decide")
    page.until(lambda: page.texts(".gr-decision .gr-chip") == ["technical"])
    assert not page.all(".gr-problem")


def test_a_service_can_be_the_model(page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    with process() as (_, url):
        page.open("Rerank")
        page.until(lambda: page.all(".gr-ranking"))
        scores = page.texts(".gr-ranking .gr-score")
        page.type("Model", url)
        page.all('[aria-label="Model"]')[0].send_keys(Keys.ENTER)
        page.until(lambda: any(f"Texts are sent to {url}" in text for text in page.texts(".gr-source")))
        page.until(lambda: page.texts(".gr-ranking .gr-score") == scores)
    page.type("Model", url.replace("http://", "http://localhost.invalid/"))
    page.all('[aria-label="Model"]')[0].send_keys(Keys.ENTER)
    page.until(lambda: page.all(".gr-problem"))
    assert not page.all("[data-testid=stException]")
