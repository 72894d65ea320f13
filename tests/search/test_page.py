"""The page of a study: self-contained, escaped, in the page's colours."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from bench.errors import BenchError
from bench.search.page import figures, render, write_study_page
from bench.search.plots import spans_decades
from bench.search.summary import summarise
from bench.svg import standalone

Builder = Callable[..., Any]

TWO = ("val_accuracy", "size_mb")
_VOID = {"meta", "br", "img", "hr", "path", "use"}


class Reader(HTMLParser):
    """Collects text, ids and links, and complains about tags that are not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in {"href", "src", "xlink:href"}]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert not reader.open
    return reader


@pytest.fixture
def filled(new_study: Builder) -> Any:
    made = new_study(TWO)
    made.fill(30, records=True)
    made.add(state="FAIL", error="out of memory")
    return made


def test_the_page_is_one_small_file_that_loads_nothing(filled: Any, tmp_path: Path) -> None:
    path = tmp_path / "search.html"
    write_study_page(filled.study, path)
    page = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 1_000_000
    assert all(link.startswith(("#", "data:application/json")) for link in _read(page).links)
    assert "<script" not in page
    assert "prefers-color-scheme: dark" in page


def test_plots_share_no_ids_and_follow_the_page_s_colours(filled: Any) -> None:
    page = render(summarise(filled.study))
    ids = _read(page).ids
    assert page.count("<svg") == 5
    assert len(set(ids)) == len(ids)
    plots = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert set(re.findall(r"#[0-9a-fA-F]{6}\b", plots)) == set()
    assert {"var(--hue0)", "var(--hue1)", "var(--hue2)", "var(--quiet)"} <= set(re.findall(r"var\(--\w+\)", plots))


def test_history_front_importances_curves_and_parallel_coordinates_are_drawn(filled: Any) -> None:
    drawn = figures(summarise(filled.study))
    assert set(drawn) == {"front_size_mb", "history", "importances", "curves", "parallel"}
    knee = summarise(filled.study)["knee"]
    assert f"knee (trial {knee})" in drawn["front_size_mb"][2]
    assert "best so far" in drawn["history"][2]
    assert "pruned" in drawn["curves"][2]
    assert all(key in drawn["parallel"][2] for key in ("optimizer.lr", "data.size", "adamw", "sgd"))


def test_a_single_objective_has_no_front(new_study: Builder) -> None:
    made = new_study()
    made.fill(12)
    page = render(summarise(made.study))
    assert "Best trial" in "".join(_read(page).text)
    assert "front_val_accuracy" not in figures(summarise(made.study))


def test_of_three_objectives_each_cost_is_drawn_against_the_first(new_study: Builder) -> None:
    made = new_study(("val_accuracy", "latency_ms", "size_mb"))
    for number in range(4):
        made.add(0.9 + number / 100, 1.0 + number, 128.0 / 10**number)
    assert [name for name in figures(summarise(made.study)) if name.startswith("front")] == [
        "front_latency_ms",
        "front_size_mb",
    ]


def test_costs_that_span_decades_are_drawn_logarithmically() -> None:
    assert spans_decades([0.1, 128.0])
    assert not spans_decades([1.0, 2.0])
    assert not spans_decades([0.0, 128.0])


def test_names_and_errors_are_escaped(new_study: Builder) -> None:
    made = new_study(name="<script>alert('x')</script>")
    made.add(0.9, params={"optimizer.name": "adamw"}, run="<b>run</b>")
    made.add(state="FAIL", error="<i>broken</i> & more")
    page = render(summarise(made.study))
    assert "<script" not in page
    assert "<b>run" not in page
    assert "&lt;i&gt;broken&lt;/i&gt; &amp; more" in page


@pytest.mark.parametrize("state", ["RUNNING", "WAITING", "PRUNED", "FAIL"])
def test_a_study_without_a_result_still_makes_a_page(new_study: Builder, state: str) -> None:
    made = new_study(TWO)
    made.add(state=state)
    assert "No trial has come to its end yet." in "".join(_read(render(summarise(made.study))).text)


def test_what_satisfies_nothing_is_said_with_the_nearest(new_study: Builder) -> None:
    made = new_study(TWO)
    made.add(state="PRUNED", constraints={"latency_ms <= 5": 1.5})
    text = "".join(_read(render(summarise(made.study))).text)
    assert "Trial 0 comes nearest; it misses latency_ms <= 5 with 6.5." in text


def test_the_whole_summary_can_be_taken_from_the_page(filled: Any) -> None:
    summary = summarise(filled.study)
    data = next(link for link in _read(render(summary)).links if link.startswith("data:"))
    assert json.loads(base64.b64decode(data.partition(",")[2])) == json.loads(json.dumps(summary))


def test_the_same_study_gives_the_same_page(filled: Any) -> None:
    assert render(summarise(filled.study)) == render(summarise(filled.study))


def test_figures_can_stand_by_themselves(filled: Any) -> None:
    for _, _, svg in figures(summarise(filled.study)).values():
        text = standalone(svg)
        assert "var(--" not in text
        root = ET.fromstring(text)  # noqa: S314  # our own
        assert root.tag.endswith("svg")
        assert float(root.attrib["width"]) > 100


def test_a_page_that_cannot_be_written_is_an_error_with_a_hint(new_study: Builder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="cannot be written") as caught:
        write_study_page(new_study().study, tmp_path / "file" / "search.html")
    assert "--html" in str(caught.value.hint)
