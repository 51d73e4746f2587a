"""The page in a real browser: what people see, hear and print, and what it must not do."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helix_lineage.page import HERE, environment
from tests.browser import Browser, Page, running, url_of
from tests.helix_lineage.page.worlds import HOSTILE, Promoted, edit_entry, hostile, promoted

INK = "getComputedStyle(document.querySelector({selector!r})).color"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running() as found:
        yield found


@pytest.fixture
def whole(tmp_path: Path) -> Promoted:
    return promoted(tmp_path / "whole")


def shown(browser: Browser, given: Promoted, *, dark: bool = False) -> Page:
    """The page in the browser, written by the command that a user types."""
    path = given.root / "trace.html"
    (given.root / "trust.json").write_bytes(given.office.trust_json())
    words = ["trace", given.id, "--log", given.log.root, "--trust", given.root / "trust.json"]
    words += ["--directory", given.office.folder, "--html", path]
    command = [sys.executable, "-m", "helix_lineage", *map(str, words)]
    subprocess.run(command, cwd=given.root, capture_output=True, check=False)
    return browser.open(url_of(path), dark=dark)


def complaints(page: Page, given: Promoted) -> list[object]:
    """Console lines, exceptions, violations of the policy, and requests beside the file itself."""
    others = [url for url in page.requests if url != url_of(given.root / "trace.html")]
    return [*page.complaints, *others]


def states(page: Page) -> dict[str, str]:
    found = page.ask("Array.from(document.querySelectorAll('details.link'), s => [s.dataset.key, s.dataset.state])")
    return dict(found)


def unfold(page: Page) -> None:
    page.ask("document.querySelectorAll('details').forEach(part => { part.open = true })")


def colour(name: str, *, dark: bool = False) -> str:
    """A colour of the style sheet as the browser says it."""
    css = (HERE / "style.css").read_text()
    text = re.findall(rf"--{name}:(#[0-9a-f]{{6}})", css)[1 if dark else 0]
    return f"rgb({', '.join(str(int(text[at : at + 2], 16)) for at in (1, 3, 5))})"


def resize(page: Page, width: int, height: int) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)


def test_every_link_is_there_with_its_digest_and_leads_on(browser: Browser, whole: Promoted) -> None:
    page = shown(browser, whole)
    assert complaints(page, whole) == []
    unfold(page)
    text = page.ask("document.body.innerText")
    wanted = [*whole.office.chain.records, whole.office.chain.release.digest, whole.promotion]
    assert [digest for digest in wanted if digest not in text] == []
    assert set(states(page).values()) == {"holds"}
    # Each box is a link to its section, and from the prediction's every other can be reached by clicking.
    targets = page.ask("Array.from(document.querySelectorAll('a[href]'), a => a.getAttribute('href').slice(1))")
    assert all(page.ask(f"document.getElementById({target!r}) !== null") for target in targets)
    step = "Array.from(document.querySelectorAll('#{} > ul a'), a => a.getAttribute('href').slice(1))"
    reached: set[str] = set()
    waiting = ["prediction"]
    while waiting:
        key = waiting.pop()
        reached.add(key)
        waiting += [target for target in page.ask(step.format(key)) if target not in reached]
    assert (
        reached
        == set(states(page))
        == set(page.ask("Array.from(document.querySelectorAll('svg a'), a => a.href.baseVal.slice(1))"))
    )


def test_an_auditor_sees_it_in_one_screen(browser: Browser, whole: Promoted) -> None:
    page = shown(browser, whole)
    resize(page, 1280, 800)
    for place in ("#verdict", "#asked", "#answered", "#origin", "#links", "#unchecked"):
        assert page.ask(f"document.querySelector('{place}').getBoundingClientRect().bottom") < 800, place
    # The evidence is folded, or it would be 9,000 pixels of tables.
    assert page.ask("document.documentElement.scrollHeight") < 2400
    assert page.ask("document.querySelectorAll('details[open]').length") == 0


@pytest.mark.parametrize("width", [320, 390, 800, 1280])
def test_nothing_is_wider_than_the_screen(browser: Browser, whole: Promoted, width: int) -> None:
    """Folded and unfolded, on a telephone too; a digest scrolls in its own place, and is not broken."""
    page = shown(browser, whole)
    resize(page, width, 800)
    for _ in range(2):
        assert page.ask("document.documentElement.scrollWidth") <= width
        unfold(page)
    lines = "Array.from(document.querySelectorAll('td code.digest'), code => code.getClientRects().length)"
    assert set(page.ask(lines)) == {1}


def test_a_link_unfolds_the_evidence_that_it_leads_to(browser: Browser, whole: Promoted) -> None:
    page = shown(browser, whole)
    for key in states(page):
        page.ask(f"document.querySelector('.links a[href=\"#{key}\"]').click()")
        assert page.ask(f"document.querySelector('[data-key=\"{key}\"]').open"), key
        assert page.ask(f"document.getElementById('{key}').getBoundingClientRect().height") > 0


def test_it_is_drawn_and_printed(browser: Browser, whole: Promoted) -> None:
    page = shown(browser, whole)
    unfold(page)
    box = page.ask("JSON.stringify(document.querySelector('svg').getBoundingClientRect())")
    assert min(json.loads(box)[side] for side in ("width", "height")) > 600
    # One colour compresses to next to nothing.
    assert len(page.screenshot()) > 100_000
    # Paper is white, whatever the screen is.
    dark = shown(browser, whole, dark=True)
    paper = "getComputedStyle(document.body).backgroundColor"
    assert dark.ask(paper) == colour("page-paper", dark=True)
    assert dark.pdf().startswith(b"%PDF-")
    dark.call("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert dark.ask(paper) == colour("page-paper")


def test_an_edited_entry_is_red_and_says_so(browser: Browser, whole: Promoted) -> None:
    """The planted fault."""
    edit_entry(whole)
    page = shown(browser, whole)
    assert complaints(page, whole) == []
    assert states(page)["prediction"] == "does not hold"
    red = colour("fails-ink")
    assert page.ask(INK.format(selector="#prediction")) == red
    assert page.ask(INK.format(selector="svg a[href='#prediction']")) == red
    assert page.ask("getComputedStyle(document.querySelector('#verdict')).borderTopColor") == red
    assert page.ask(INK.format(selector="#shard")) == colour("holds-ink")
    assert "does not hold" in page.ask("document.querySelector(\"svg a[href='#prediction']\").textContent")
    # What does not hold is unfolded, and nothing else.
    assert page.ask("Array.from(document.querySelectorAll('details[open]'), part => part.dataset.key)") == [
        "prediction"
    ]
    assert "the entry is not the one under the signed checkpoint" in page.ask(
        "document.querySelector('#verdict').innerText"
    )


def test_a_record_that_is_markup_stays_text(browser: Browser, tmp_path: Path) -> None:
    """The canary: scripts and images in the model's name, the commit, a target, names and values of verdicts."""
    given = hostile(tmp_path / "hostile")
    page = shown(browser, given)
    assert complaints(page, given) == []
    assert page.ask("window.owned") is None
    assert page.ask("document.querySelectorAll('script, img').length") == 0
    assert HOSTILE.replace("\u202e", "\\u{202e}") in page.ask("document.querySelector('h1').innerText")
    unfold(page)
    assert page.ask("document.body.innerText").count("<script>window.owned=1</script>") > 10


def test_even_what_broke_out_could_do_nothing(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault, a page without escaping: the browser finds elements, and the policy stops them."""
    given = hostile(tmp_path / "hostile")
    bare = environment()
    bare.autoescape = False
    monkeypatch.setattr("helix_lineage.page.environment", lambda: bare)
    (tmp_path / "planted.html").write_bytes(given.page())
    page = browser.open(url_of(tmp_path / "planted.html"))
    assert page.ask("document.querySelectorAll('script, img').length") > 0
    assert page.ask("window.owned") is None
    assert any("Content Security Policy" in json.dumps(item) for item in page.complaints)
    # And without the policy as well, the canary sings.
    (tmp_path / "bare.html").write_bytes(given.page().replace(b"Content-Security-Policy", b"x"))
    assert browser.open(url_of(tmp_path / "bare.html")).ask("window.owned") == 1


def test_it_can_be_heard(browser: Browser, whole: Promoted) -> None:
    """What a screen reader is told: landmarks, one heading of the first level, names, no level left out."""
    page = shown(browser, whole)
    unfold(page)
    nodes = [node for node in page.call("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    roles = [node["role"]["value"] for node in nodes]
    assert {"banner", "main", "contentinfo", "region", "table", "rowheader"} <= set(roles)
    assert roles.count("main") == 1
    levels = [
        item["value"]["value"]
        for node in nodes if node["role"]["value"] == "heading"
        for item in node["properties"] if item["name"] == "level"
    ]  # fmt: skip
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    named = ("link", "region", "table", "heading")
    assert [node for node in nodes if node["role"]["value"] in named and not node.get("name", {}).get("value")] == []
    links = {node["name"]["value"] for node in nodes if node["role"]["value"] == "link"}
    assert any(name.startswith("Release ") and name.endswith(": holds") for name in links)
    assert page.ask("document.documentElement.lang") == "en"


def test_it_can_be_used_without_a_mouse(browser: Browser, whole: Promoted) -> None:
    page = shown(browser, whole)
    page.call("Page.bringToFront")
    where = (
        "(e => e.dataset.key || e.parentElement.dataset.key || e.getAttribute('href') || e.tagName)"
        "(document.activeElement)"
    )
    visited = []
    while "BODY" not in visited:  # around once: folded as it is, the picture and the evidence cost no stop
        page.press("Tab", 9)
        visited.append(page.ask(where))
        assert len(visited) < 200
    assert visited[0] == "#evidence"
    assert set(states(page)) <= set(visited)
    for _ in range(1 + visited.index("release")):
        page.press("Tab", 9)
    assert page.ask(where) == "release"
    assert page.ask("getComputedStyle(document.activeElement).outlineStyle") != "none"
    page.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", windowsVirtualKeyCode=13, text="\r")
    assert page.ask("document.querySelector('[data-key=release]').open")
