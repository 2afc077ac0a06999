"""perfkeep.formats.flamegraph: what the page holds, and what it does in a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.formats.flamegraph import Weighed, flamegraph
from perfkeep.testing.browser import Browser
from perfkeep.testing.requirements import chromium, requires

HOSTILE = "</script><img src=x onerror=\"document.title='run'\"><!--<script>"
STACKS: Weighed = [
    ([("sh", ""), ("main", "/bin/sh"), ("read", "[kernel]")], 60),
    ([("sh", ""), ("main", "/bin/sh"), ("write", "[kernel]")], 30),
    ([("cat", ""), ("main", "/bin/cat")], 10),
]


def data_of(page: bytes) -> dict[str, Any]:
    (text,) = re.findall(rb'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    found: dict[str, Any] = json.loads(text)
    return found


def frames_of(page: bytes) -> list[tuple[int, str, int, int]]:
    """(depth, name, after, before)"""
    data = data_of(page)
    flat = data["nodes"]
    return [
        (flat[at], data["texts"][flat[at + 1]], *flat[at + 3 : at + 5])
        for at in range(0, len(flat), 5)
    ]


def test_frames_of_one_caller_are_one() -> None:
    assert frames_of(flamegraph("x", STACKS)) == [
        (0, "all", 100, 0), (1, "cat", 10, 0), (2, "main", 10, 0), (1, "sh", 90, 0),
        (2, "main", 90, 0), (3, "read", 60, 0), (3, "write", 30, 0),
    ]  # fmt: skip


def test_frames_that_are_too_thin_to_see_are_left_out_and_counted() -> None:
    page = flamegraph("x", [*STACKS, ([("sh", ""), ("rare", ""), ("rarer", "")], 0)])
    assert "rare" not in [name for _, name, _, _ in frames_of(page)]
    assert data_of(page)["left_out"] == 2


def test_a_comparison_has_what_either_side_has() -> None:
    before: Weighed = [([("sh", ""), ("gone", "")], 50)]
    frames = frames_of(flamegraph("x", STACKS, before))
    assert (2, "gone", 0, 50) in frames and (1, "sh", 90, 50) in frames


@given(st.lists(st.tuples(st.lists(st.tuples(st.text(), st.text())), st.integers(1, 9))))
def test_whatever_frames_are_called_the_page_holds_it_as_data(stacks: list[Any]) -> None:
    page = flamegraph("x", stacks)
    assert page.count(b"<script") == page.count(b"</script>") == 2
    (total,) = {after for depth, _, after, _ in frames_of(page) if not depth}
    assert total == sum(count for _, count in stacks)
    names = {name for _, name, _, _ in frames_of(page)} - {"all"}
    assert names <= {name for frames, _ in stacks for name, _ in frames}


# --- in a browser ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


def show(browser: Browser, tmp_path: Path, page: bytes) -> None:
    path = tmp_path / "flame.html"
    path.write_bytes(page)
    browser.said.clear()
    browser.open(path.as_uri())


def box(name: str) -> str:
    """The drawn frames of this name."""
    return f"[...graph.children].filter(one => one.ariaLabel.startsWith('{name}'))"


def point(browser: Browser, name: str, click: bool) -> None:
    x, y = browser.ask(
        f"(() => {{ const r = {box(name)}[0].getBoundingClientRect();"
        " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
    )
    browser.mouse(x, y, click)


def part(browser: Browser, name: str) -> float:
    """Of the graph's width."""
    return float(browser.ask(f"{box(name)}[0].offsetWidth / graph.clientWidth"))


@requires(chromium)
def test_a_click_zooms_and_escape_brings_all_back(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, flamegraph("x", STACKS))
    assert part(browser, "read") == pytest.approx(0.6, abs=0.01)
    point(browser, "read", click=True)
    assert part(browser, "read") == pytest.approx(1, abs=0.01)
    assert browser.ask(f"{box('write')}.length") == 0
    assert browser.ask(f"{box('sh')}[0].className") == "above"
    browser.key("Escape")
    assert part(browser, "read") == pytest.approx(0.6, abs=0.01)


@requires(chromium)
def test_a_search_marks_what_matches_and_says_its_share(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, flamegraph("x", STACKS))
    browser.key("/")
    browser.write("^ma.n$|read")
    assert browser.ask("at('found').textContent") == "matched: 100.00 %"
    assert browser.ask("graph.querySelectorAll('.found').length") == 3
    browser.ask("at('text').select()")
    browser.write("write")
    assert browser.ask("at('found').textContent") == "matched: 30.00 %"
    browser.write("(")
    assert browser.ask("at('text').getAttribute('aria-invalid')") == "true"
    browser.ask("at('reset').click()")
    assert browser.ask("at('found').textContent + graph.querySelectorAll('.found').length") == "0"


@requires(chromium)
def test_a_frame_under_the_mouse_tells_of_itself(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, flamegraph("x", STACKS))
    point(browser, "write", click=False)
    assert browser.ask("detail.textContent") == "write, [kernel]: 30 samples, 30.00 %"


@requires(chromium)
def test_the_keyboard_walks_and_zooms(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, flamegraph("x", STACKS))
    browser.ask(f"{box('all')}[0].focus()")
    for key in ("ArrowUp", "ArrowUp", "ArrowUp", "ArrowRight"):
        browser.key(key)
    assert browser.ask("document.activeElement.ariaLabel").startswith("write")
    browser.key("Enter")
    assert part(browser, "write") == pytest.approx(1, abs=0.01)
    assert browser.ask("document.activeElement.ariaLabel").startswith("write")


@requires(chromium)
def test_a_hostile_name_is_shown_and_not_run(browser: Browser, tmp_path: Path) -> None:
    page = flamegraph(HOSTILE, [([(HOSTILE, HOSTILE), ("@DATA@", "\ud800")], 5)])
    show(browser, tmp_path, page)
    assert browser.ask("document.title") == HOSTILE
    assert browser.ask("graph.children[1].textContent") == HOSTILE
    assert browser.ask("document.images.length") == 0
    assert browser.said == []


@requires(chromium)
def test_a_comparison_is_red_where_it_grew_and_blue_where_it_shrank(
    browser: Browser, tmp_path: Path
) -> None:
    before: Weighed = [
        ([("sh", ""), ("main", "/bin/sh"), ("read", "[kernel]")], 1),
        ([("sh", ""), ("main", "/bin/sh"), ("write", "[kernel]")], 8),
        ([("cat", ""), ("main", "/bin/cat")], 1),
    ]
    show(browser, tmp_path, flamegraph("x", STACKS, before))

    def rgb(name: str) -> list[float]:
        text = browser.ask(f"getComputedStyle({box(name)}[0]).backgroundColor")
        return [float(one) for one in re.findall(r"[\d.]+", text)][:3]

    red, _, blue = rgb("read")
    assert red > 1.5 * blue
    red, _, blue = rgb("write")
    assert blue > 1.5 * red
    assert len(set(rgb("cat"))) == 1, "the same share on both sides is grey"
    assert "before 1, 10.00 %: +50.00 points" in browser.ask(f"{box('read')}[0].ariaLabel")
    browser.ask("at('swap').click()")
    assert part(browser, "write") == pytest.approx(0.8, abs=0.01)


@requires(chromium)
def test_the_page_is_dark_where_a_person_wants_it_dark(browser: Browser, tmp_path: Path) -> None:
    back = "getComputedStyle(document.body).backgroundColor"
    show(browser, tmp_path, flamegraph("x", STACKS))
    browser.dark(True)
    dark = browser.ask(back)
    browser.dark(False)
    assert (dark, browser.ask(back)) == ("rgb(23, 24, 27)", "rgb(255, 255, 255)")
