"""The page in a browser without a head: it opens, steps, filters, shows what it should, and says no error.

Screenshots go to the folder that NABLA_SCREENSHOTS names, else into pytest's own.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from nabla.cli import main
from tests.launch.view import made

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if BROWSER is None:
    pytest.skip("no Chromium on this machine: apt-get install chromium", allow_module_level=True)
api = pytest.importorskip("playwright.sync_api", reason="playwright is of the extra [dev]")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("view")


@pytest.fixture(scope="module")
def pages(place):
    one, two = made.folder(place / "first"), made.folder(place / "second", seed=1)
    single, pair = place / "one.html", place / "two.html"
    assert main(["view", str(one), "--output", str(single)]) == 0
    assert main(["view", str(one), str(two), "--output", str(pair)]) == 0
    return single, pair


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def opened(browser):
    """Opens a file; afterwards the console must have been silent, and nothing loaded."""
    said, asked, contexts = [], [], []

    def load(path: Path, scheme: str = "light", width: int = 1280, height: int = 900):
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda wanted: asked.append(wanted.url))
        page.goto(path.as_uri())
        page.wait_for_selector("#list li")  # what the page holds is unpacked
        return page

    yield load
    for context in contexts:
        context.close()
    assert said == []
    assert all(url.startswith(("file:", "data:")) for url in asked)


def shoot(page, place: Path, name: str) -> None:
    folder = Path(os.environ.get("NABLA_SCREENSHOTS", place))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    page.screenshot(path=path)
    assert path.stat().st_size > 20_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_with_the_answer(pages, opened, place, scheme):
    page = opened(pages[0], scheme)
    assert page.locator("#list li").count() == 4
    assert page.locator(".text .tok").count() == 30
    assert page.locator(".counter").inner_text() == "8 / 8"
    assert "reward" in page.locator(".facts").inner_text()
    assert page.locator(".glyph").count() >= 8
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    shoot(page, place, f"answer-{scheme}")


def test_steps_by_key_and_by_mouse(pages, opened, place):
    page = opened(pages[0])
    page.keyboard.press("Home")
    assert page.locator(".counter").inner_text() == "1 / 8"
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.locator(".detail h4").inner_text().startswith("Step 4: proposal rejected at position 12")
    about = page.locator(".about").inner_text()
    assert "strict: reward 0.8 → 0.4" in about
    assert "at position 13 of the new text, which ends at 29" in about
    swap = page.locator(".swap").inner_text()
    assert "60.0 % → 40.0 % refined" in swap
    assert page.locator(".pair .tok.bad").count() == 1
    assert page.locator(".candidates tbody tr").count() == 2
    shoot(page, place, "rejected")
    page.locator('.glyph[data-step="2"]').click()
    assert "proposal accepted" in page.locator(".detail h4").inner_text()
    assert page.locator(".run > .text .tok.fresh").count() > 3
    shoot(page, place, "accepted")
    page.locator(".steps tbody tr").nth(0).click()
    assert page.locator(".counter").inner_text() == "1 / 8"
    page.keyboard.press("End")
    assert page.locator(".run > .text .tok.revised").count() == 1


def test_a_search_shows_what_it_kept_and_what_it_dropped(opened, place):
    trace, path = made.Made(), place / "search.html"
    trace.search("s")
    assert main(["view", str(trace.write(place / "search.jsonl")), "--output", str(path)]) == 0
    page = opened(path)
    rows = page.locator(".steps tbody tr").all_inner_texts()
    assert [row.split("\t")[1:3] for row in rows] == [
        ["text kept ×2", "1"], ["text dropped", "0"], ["text complete", "2"], ["answer", "2"],
    ]  # fmt: skip
    heads = page.locator(".steps th").all_inner_texts()
    assert heads == ["step", "what", "reward", "calls"]  # no empty columns
    assert page.locator(".timeline .scroll-x .glyph.dropped").count() == 1
    assert "proposals" not in page.locator(".facts").inner_text()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert "does not go on" in page.locator(".note").inner_text()
    shoot(page, place, "search")


def test_problems_are_filtered_by_words_and_kinds(pages, opened):
    page = opened(pages[0])
    page.keyboard.press("/")
    page.keyboard.type("p2")
    assert page.locator("#list li").count() == 1
    assert page.locator("#problem-id").inner_text() == "p2"
    assert page.locator("#count").inner_text() == "1 of 4 problems"
    page.locator("#filter").fill("")
    page.locator(".chips button", has_text="wrong").click()
    assert page.locator("#list li").count() == 1
    page.locator(".chips button", has_text="all").click()
    page.locator("#list li").nth(3).click()
    assert page.locator("#problem-id").inner_text() == "p3"
    page.keyboard.press("ArrowUp")
    assert page.locator("#problem-id").inner_text() == "p2"


def test_the_tooltip_tells_what_is_known_and_what_is_not(pages, opened, place):
    page = opened(pages[0])
    page.locator(".run > .text .tok").nth(4).hover()
    tip = page.locator("#tip")
    assert tip.is_visible()
    said = tip.inner_text()
    assert "entropy" in said
    assert "value" in said
    assert "not computed" in said  # nobody asked for the norms
    shoot(page, place, "tooltip")
    page.locator(".controls").hover()
    assert not tip.is_visible()
    page.keyboard.press(".")
    assert tip.is_visible()
    assert page.locator(".tok.cursor").count() == 1


def test_the_keyboard_reaches_the_tokens_of_both_runs(pages, opened):
    page = opened(pages[1], width=1500)
    for own in (1, 0):
        page.locator(".run > .text").nth(own).focus()
        page.keyboard.press(".")
        assert page.locator(".run").nth(own).locator(".tok.cursor").count() == 1


def test_the_page_says_what_its_words_mean(pages, opened, place):
    page = opened(pages[0])
    assert page.locator("#about").inner_text().startswith("log π of the token")
    page.keyboard.press("Home")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    terms = page.locator(".about dt")
    assert terms.count() >= 6
    assert terms.evaluate_all("all => all.every((one) => one.dataset.about)")
    page.locator(".about dt", has_text="first bad token").hover()
    assert "gone wrong" in page.locator("#tip").inner_text()
    shoot(page, place, "explained")
    page.locator("#help-button").click()
    said = page.locator("#help").inner_text()
    for word in ("KL moved", "first bad token", "entropy", "grey", "calls", "proposal passed over", "Keys"):
        assert word in said
    box = page.locator("#help").bounding_box()
    assert box["y"] >= 0
    assert box["y"] + box["height"] <= 900
    shoot(page, place, "what-you-see")


def test_what_was_not_computed_is_grey(pages, opened):
    page = opened(pages[0])
    known = {}
    for value in range(page.locator("#quantity option").count()):
        page.locator("#quantity").select_option(str(value))
        name = page.locator(f'#quantity option[value="{value}"]').inner_text()
        known[name] = 30 - page.locator(".run > .text .tok.grey").count()
    assert known["entropy"] == known["log-probability"] == 30
    assert 0 < known["KL moved (refined)"] < 30
    assert 0 < known["δ_reward (refined)"] < 30
    assert 0 < known["value of the reward"] < 30
    assert known["gradient norm in tokens (selector) – not computed"] == 0
    assert known["nothing"] == 30


def test_two_runs_stand_side_by_side(pages, opened, place):
    page = opened(pages[1], width=1500)
    assert page.locator(".run").count() == 2
    page.locator(".chips button", has_text="differ").click()
    assert page.locator("#list li").count() == 2
    page.keyboard.press("ArrowLeft")
    assert page.locator(".counter").all_inner_texts() == ["7 / 8"] * 2
    boxes = [page.locator(".run").nth(i).bounding_box() for i in (0, 1)]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    shoot(page, place, "two")


def test_texts_are_only_ever_texts(pages, opened, place):
    page = opened(pages[0])
    page.locator("#list li").nth(1).click()
    assert made.EVIL in page.locator("#prompt").inner_text()
    assert "<script>" in page.locator(".run > .text").inner_text()
    page.locator(".run > .text .tok").last.hover()
    for _ in range(8):
        page.keyboard.press("ArrowLeft")
    assert page.evaluate("window.harmed") is None
    shoot(page, place, "escaped")


def test_it_can_be_printed_and_read_on_a_small_screen(pages, opened, place):
    page = opened(pages[0], "dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator(".problems").is_visible()
    assert page.locator(".steps").is_visible()
    shoot(page, place, "print")
    small = opened(pages[1], width=480, height=900)
    assert small.evaluate("document.documentElement.scrollWidth") <= 480
    for width in (480, 400, 340):
        small.set_viewport_size({"width": width, "height": 900})
        for box in small.locator(".controls, .cost-unit select").all():
            edge = box.bounding_box()
            assert edge["x"] + edge["width"] <= width - 20  # as far as the column goes
    shoot(small, place, "small")


def test_the_theme_can_be_changed(pages, opened):
    page = opened(pages[0], "dark")
    page.keyboard.press("t")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()
