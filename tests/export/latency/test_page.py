"""The latency page."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bench_export.latency.page import render, write_page
from bench_export.latency.plots import batches_plot, distribution_plot, drift_plot

_VOID = {"meta", "br", "img", "hr", "path", "use"}


class Reader(HTMLParser):
    """Collects text and ids, and complains about tags that are not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids += [values["id"] or ""] if "id" in values else []
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


def test_the_page_is_one_small_file_that_loads_nothing(latency_record: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "latency.html"
    write_page(latency_record, path)
    assert path.stat().st_size < 1_000_000
    reader = _read(path.read_text(encoding="utf-8"))
    assert all(link.startswith(("#", "data:application/json")) for link in reader.links)
    assert "<script" not in path.read_text(encoding="utf-8")


def test_verdicts_come_before_the_tables(latency_record: dict[str, Any]) -> None:
    text = "".join(_read(render(latency_record)).text)
    places = [text.index(what) for what in ("recommended", "ort-int8 against ort: 7.1 % faster", "p99.9", "Machine")]
    assert places == sorted(places)
    assert "not publishable --quick" in text
    assert "p99.9 of torch: 96 queries; its 95 % interval needs 2995" in text


def test_the_whole_record_can_be_taken_from_the_page(latency_record: dict[str, Any]) -> None:
    data = next(link for link in _read(render(latency_record)).links if link.startswith("data:"))
    assert json.loads(base64.b64decode(data.partition(",")[2])) == latency_record


def test_plots_follow_the_page_s_colours_and_share_no_ids(latency_record: dict[str, Any]) -> None:
    html = render(latency_record)
    reader = _read(html)
    assert html.count("<svg") == 4
    assert len(set(reader.ids)) == len(reader.ids)
    plots = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert set(re.findall(r"#[0-9a-fA-F]{6}\b", plots)) == set()
    assert {"var(--hue0)", "var(--hue1)", "var(--hue2)", "var(--quiet)", "var(--line)"} <= set(
        re.findall(r"var\(--\w+\)", plots)
    )


def test_names_from_outside_are_escaped(latency_record: dict[str, Any]) -> None:
    latency_record["candidates"][0]["name"] = "<b>torch</b>"
    latency_record["settings"]["samples"]["source"] = "<script>alert(1)</script>"
    html = render(latency_record)
    assert "<script" not in html
    assert "<b>torch" not in html
    assert "&lt;b&gt;torch&lt;/b&gt;" in html


def test_a_record_that_lacks_most_things_still_makes_a_page(latency_record: dict[str, Any]) -> None:
    latency_record |= {"by_batch": [], "comparisons": [], "recommendation": None, "publishable": True, "why_not": []}
    latency_record["conditions"] = {"machine": {}, "before": None, "during": None, "after": None}
    del latency_record["candidates"][1:]
    del latency_record["candidates"][0]["measures"]["end_to_end"]
    latency_record["candidates"][0]["measures"]["compute"] |= {"grid_ms": [], "percentiles": {}}
    text = "".join(_read(render(latency_record)).text)
    assert "publishable" in text
    assert "not publishable" not in text


def test_energy_and_tuning_are_shown_where_they_are_known(latency_record: dict[str, Any]) -> None:
    assert "energy, J" not in render(latency_record)
    latency_record["candidates"][1] |= {
        "energy_j": 12.5,
        "tuning": {"intra_op_threads": 1, "spinning": False, "tried": []},
    }
    text = "".join(_read(render(latency_record)).text)
    assert "energy, J" in text
    assert "1 thread, no spinning" in text


def test_the_same_record_gives_the_same_page(latency_record: dict[str, Any]) -> None:
    assert render(latency_record) == render(latency_record)


def test_a_refused_percentile_is_not_drawn(latency_record: dict[str, Any]) -> None:
    few, many = latency_record["candidates"][0], latency_record["candidates"][1]
    lengths = []
    for candidate in (few, many):
        svg = distribution_plot([candidate], "compute")
        assert svg is not None
        lengths.append(svg.count("<use"))
    assert lengths[0] < lengths[1]


def test_nothing_is_drawn_of_a_single_block_or_batch(latency_record: dict[str, Any]) -> None:
    candidates = latency_record["candidates"]
    assert drift_plot(candidates, "compute") is not None
    for one in candidates:
        del one["measures"]["compute"]["blocks"][1:]
    assert drift_plot(candidates, "compute") is None
    assert batches_plot(latency_record["by_batch"][:1], ["torch"]) is None


def test_an_interval_that_reaches_below_nothing_leaves_the_plot_readable(latency_record: dict[str, Any]) -> None:
    entries = [{**one, "low": -3.0} for one in latency_record["by_batch"]]
    svg = batches_plot(entries, ["torch", "ort", "ort-int8"])
    assert svg is not None
    assert {">100</text>", ">1,000</text>"} <= set(re.findall(r">[\d,]+</text>", svg))


def test_an_axis_with_little_on_it_has_ticks_too(latency_record: dict[str, Any]) -> None:
    svg = distribution_plot(latency_record["candidates"][:1], "compute")
    assert svg is not None
    assert len(re.findall(r">\d\.\d+</text>", svg)) >= 3  # between 4.6 and 5.8 ms


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e4])
def test_axes_have_plain_numbers_at_any_scale(latency_record: dict[str, Any], factor: float) -> None:
    entries = [
        {**one, **{k: one[k] * factor for k in ("samples_per_second", "low", "high")}}
        for one in latency_record["by_batch"]
    ]
    svg = batches_plot(entries, ["torch", "ort", "ort-int8"])
    assert svg is not None
    labels = re.findall(r">([^<>\n]+)</text>", svg)
    numbers = [label for label in labels if re.fullmatch(r"[\d,.]+", label)]
    assert len(numbers) >= 5
    assert not any("e" in label or "$" in label for label in numbers)


def test_what_a_correction_has_taken_back_is_not_shown_as_a_difference(latency_record: dict[str, Any]) -> None:
    verdict = "no difference detectable (after Holm's correction for 3 pairs)"
    latency_record["comparisons"] = [{**latency_record["comparisons"][0], "verdict": verdict}]
    taken_back = render(latency_record)
    assert "no difference detectable" in taken_back
    latency_record["comparisons"][0]["verdict"] = "ort 5.31 times as fast [5.12, 5.49]"
    found = render(latency_record)
    assert "<b>ort against torch" in found
    assert "<b>ort against torch" not in taken_back
