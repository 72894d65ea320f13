"""The report in a real browser: what a person clicks, sorts and sees."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "export" / "serving"))

from chromium import Browser, executable  # the browser of the serving page's tests

from bench.record import Run
from bench.reporting.report import Written

Report = Callable[..., tuple[Written, str]]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(executable() is None, reason="there is no Chromium here"),
]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path / "profile") as page:
        yield page


def _wrong_cell(browser: Browser) -> str:
    return str(browser.run("document.querySelector('.matrix td[data-cell]:not(.right)').dataset.cell"))


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (400, False), (400, True)])
def test_a_click_on_a_cell_shows_its_images(
    browser: Browser, runs: list[Run], report: Report, width: int, dark: bool
) -> None:
    written, _ = report(runs[0].name)
    browser.open(written.path.as_uri(), width=width, dark=dark)
    assert browser.run("document.getElementById('r0-panel').hidden")
    cell = _wrong_cell(browser)
    count = int(browser.run(f"document.querySelector('td[data-cell=\"{cell}\"]').textContent"))
    box = browser.run(
        f"(() => {{ const td = document.querySelector('td[data-cell=\"{cell}\"]'); td.scrollIntoView({{block: 'center'}});"
        " const r = td.getBoundingClientRect(); return [r.left + r.width / 2, r.top + r.height / 2]; })()"
    )
    for kind in ("mousePressed", "mouseReleased"):
        browser.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)
    browser.wait_for("!document.getElementById('r0-panel').hidden")
    shown = "[...document.querySelectorAll('#r0-panel img')]"
    assert browser.run(f"{shown}.length") == count
    browser.wait_for(
        f"(() => {{ {shown}.forEach(i => i.loading = 'eager'); return {shown}.every(i => i.naturalWidth > 0); }})()"
    )
    assert browser.run("document.documentElement.scrollWidth") <= width
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 200) == dark
    assert browser.messages == []


def test_the_keyboard_walks_over_the_cells_and_opens_one(browser: Browser, runs: list[Run], report: Report) -> None:
    written, _ = report(runs[0].name)
    browser.open(written.path.as_uri())
    assert browser.run("document.querySelectorAll('.matrix td[tabindex=\"0\"]').length") == 1
    browser.run("document.querySelector('.matrix td[tabindex=\"0\"]').focus()")
    first = browser.run("document.activeElement.dataset.cell")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowDown")
    second = browser.run("document.activeElement.dataset.cell")
    assert second.split(",")[1] == first.split(",")[1]
    assert second != first
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="Enter")
    browser.wait_for("!document.getElementById('r0-panel').hidden")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="Escape")
    browser.wait_for("document.getElementById('r0-panel').hidden")
    assert browser.run("document.activeElement.dataset.cell") == second


def test_the_keyboard_reaches_every_cell_of_a_diagonal(browser: Browser, runs: list[Run], report: Report) -> None:
    written, _ = report(runs[0].name)
    page = written.path.read_text(encoding="utf-8")
    written.path.write_text(re.sub(r'<td role="gridcell" class="[^"]*" data-cell="(\d),(?!\1)[^>]*>', "<td>", page))
    browser.open(written.path.as_uri())
    browser.run("document.querySelector('.matrix td[tabindex=\"0\"]').focus()")
    seen = [browser.run("document.activeElement.dataset.cell")]
    for key in ("ArrowDown", "ArrowRight", "ArrowUp", "ArrowLeft"):
        browser.call("Input.dispatchKeyEvent", type="keyDown", key=key)
        seen.append(browser.run("document.activeElement.dataset.cell"))
    assert seen == ["0,0", "1,1", "2,2", "1,1", "0,0"]
    assert browser.run("document.querySelectorAll('.matrix td[tabindex=\"0\"]').length") == 1


def test_a_table_is_sorted_by_its_heads(browser: Browser, runs: list[Run], report: Report) -> None:
    written, _ = report(runs[0].name)
    browser.open(written.path.as_uri())
    table = "document.querySelector('#classes + .card table')"
    values = f"[...{table}.tBodies[0].rows].map(row => Number(row.cells[4].dataset.value))"
    browser.run(f"{table}.tHead.rows[0].cells[4].firstElementChild.click()")
    assert browser.run(values) == sorted(browser.run(values))
    browser.run(f"{table}.tHead.rows[0].cells[4].firstElementChild.click()")
    assert browser.run(values) == sorted(browser.run(values), reverse=True)
    assert browser.run(f"{table}.tHead.rows[0].cells[4].ariaSort") == "descending"


def test_pairs_show_two_images_side_by_side(browser: Browser, pairs_run: Run, report: Report) -> None:
    written, _ = report(pairs_run.name)
    browser.open(written.path.as_uri(), width=400)
    browser.run("document.querySelector('.matrix td[data-cell]').click()")
    assert browser.run("[...document.querySelectorAll('#r0-panel .sides')].every(s => s.children.length === 2)")
    tops = browser.run(
        "[...document.querySelectorAll('#r0-panel .sides')].map(s => s.children[0].offsetTop - s.children[1].offsetTop)"
    )
    assert tops
    assert set(tops) == {0}
    assert browser.run("document.documentElement.scrollWidth") <= 400


def test_on_paper_the_ink_is_dark_and_nothing_is_cut_off(browser: Browser, runs: list[Run], report: Report) -> None:
    from bench.comparison import compare
    from bench.comparison.page import write

    comparison = report(runs[0].name)[0].path.with_name("comparison.html")
    write(compare([one.name for one in runs]), comparison)
    text = comparison.read_text(encoding="utf-8")
    comparison.write_text(text.replace("<body>", '<body data-ready="yes">'), encoding="utf-8")  # what `open` waits for
    for path in (comparison, comparison.with_name("report.html")):
        browser.open(path.as_uri(), width=720, dark=True)
        scheme = {"name": "prefers-color-scheme", "value": "dark"}
        browser.call("Emulation.setEmulatedMedia", media="print", features=[scheme])
        browser.run("dispatchEvent(new Event('beforeprint'))")
        ink = browser.run("getComputedStyle(document.body).color")
        assert sum(map(int, ink[4:-1].split(","))) < 200
        assert browser.run("document.documentElement.scrollWidth") <= 720
        scrolling = "e => getComputedStyle(e).overflowX !== 'visible'"
        assert not browser.run(f"[...document.querySelectorAll('.scroll')].some({scrolling})")


def test_a_report_of_an_experiment_works_without_an_error(browser: Browser, runs: list[Run], report: Report) -> None:
    assert len(runs) == 2
    written, _ = report("toys")
    for width in (400, 1200):
        browser.open(written.path.as_uri(), width=width)
        assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("document.querySelectorAll('h2').length") >= 3
    assert browser.messages == []
