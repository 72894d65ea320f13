"""The page of a comparison: self-contained, escaped, sortable, and a part of other pages."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.comparison import Comparison, compare
from bench.comparison.page import section, write
from bench.comparison.plots import front, pareto_plots
from bench.errors import BenchError
from bench.record import Run

Recorder = Callable[..., Run]

_VOID = {"meta", "br", "path", "use"}
GROUPS = [f"20261126-1000{number:02}-aaaa" for number in range(40)]


class Reader(HTMLParser):
    """Collects ids, links and cells, and complains about tags that are not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.kinds: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.ids += [known["id"] or ""] if "id" in known else []
        self.links += [value or "" for name, value in attrs if name in {"href", "src", "xlink:href"}]
        self.kinds += [known.get("class") or ""] if tag == "td" else []
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert not reader.open
    return reader


@pytest.fixture
def found(recorded: Recorder) -> Comparison:
    for number, (group, right) in enumerate(zip(GROUPS, (290, 289, 200), strict=False)):
        run = recorded(np.arange(300) < right, group=group, recipe=f"r{number}.toml", text=f"[train]\nepochs = {number}\n",
                       metrics={"parameters": 10.0 ** (number + 3)})  # fmt: skip
        run.update(note=number)
    recorded(
        np.arange(40) < 30, group=GROUPS[9], recipe="<b>.toml", text='[model]\nname = "<script>alert(1)</script>"\n'
    )
    failed = recorded(np.arange(40) < 30, group=GROUPS[10])
    failed.update(status="failed", error="<img src=x>")
    return compare(["toys"])


def test_the_page_is_one_file_that_loads_nothing(found: Comparison, tmp_path: Path) -> None:
    path = tmp_path / "comparison.html"
    write(found, path)
    text = path.read_text(encoding="utf-8")
    reader = read(text)
    assert all(link.startswith(("#", "data:application/json")) for link in reader.links)
    assert len(set(reader.ids)) == len(reader.ids)
    assert "prefers-color-scheme: dark" in text
    assert "<title>toys: comparison</title>" in text
    (download,) = re.findall(r"data:application/json;base64,([^\"]+)", text)
    assert len(json.loads(base64.b64decode(download))["verdicts"]) == 3


def test_everything_from_outside_is_escaped(found: Comparison) -> None:
    text = section(found)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<img" not in text
    assert "&lt;b&gt;" in text


def test_the_section_is_a_fragment_with_table_matrix_plots_and_differences(found: Comparison) -> None:
    text = section(found)
    kinds = read(text).kinds
    assert "<html" not in text
    assert (kinds.count("good"), kinds.count("worse"), kinds.count("same")) == (2, 2, 2)
    assert text.count("<svg") == 1  # parameters: nothing else was measured
    assert "train.epochs" in text
    assert "Left out" in text
    assert "within the noise" in text


def test_many_entries_are_told_against_the_best(recorded: Recorder) -> None:
    for number, group in enumerate(GROUPS):
        recorded(np.arange(100) < 90 - number, group=group, text=f"[train]\nepochs = {number}\n")
    text = section(compare(["toys"]))
    assert 'class="grid' not in text
    assert "Every entry against the most accurate one" in text
    assert text.count("1 and ") + text.count("1 better than ") == 39


def test_nothing_to_compare_is_a_page_as_well(recorded: Recorder, tmp_path: Path) -> None:
    recorded(np.arange(10) < 5, group=GROUPS[0]).update(status="failed", error="no luck")
    write(compare(["toys"]), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "nothing to compare" in text
    assert "no luck" in text


def test_a_page_that_cannot_be_written_is_an_error_with_a_hint(found: Comparison, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="cannot be written") as caught:
        write(found, tmp_path / "file" / "page.html")
    assert caught.value.hint


def test_the_front_holds_what_nothing_cheaper_matches(found: Comparison) -> None:
    entries: list[Any] = list(found.entries[:3])
    costs = [3.0, 1.0, 2.0]
    assert [(entry.number, cost) for entry, cost in front(list(zip(entries, costs, strict=True)))] == [
        (2, 1.0),
        (1, 3.0),
    ]


def test_there_is_no_plot_of_a_single_cost(found: Comparison) -> None:
    assert pareto_plots(found.entries[:1], "one") == []
