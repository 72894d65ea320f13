"""The report on the terminal."""

from __future__ import annotations

from typing import Any

import pytest

from bench_export.latency.table import print_report
from bench_export.latency.wording import digits, heading, verdict


@pytest.fixture
def printed(latency_record: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    print_report(latency_record)
    return capsys.readouterr().out


def test_no_line_is_wider_than_80_columns(printed: str) -> None:
    assert max(map(len, printed.splitlines())) <= 80


def test_percentiles_carry_their_intervals(printed: str, latency_record: dict[str, Any]) -> None:
    p90 = latency_record["candidates"][1]["measures"]["end_to_end"]["percentiles"]["90"]
    shown = f"{digits(p90['value_ms'])} [{digits(p90['low_ms'])}, {digits(p90['high_ms'])}]"
    assert shown in printed
    assert printed.index("end to end") < printed.index(shown) < printed.index("compute only")


def test_a_percentile_that_the_sample_cannot_support_is_a_dash_with_its_reason(printed: str) -> None:
    rows = [line.split() for line in printed.splitlines() if line.startswith("torch ")]
    assert rows[0][-1] == "-"
    assert "p99 of torch: 96 queries; its 95 % interval needs 299" in printed


def test_verdicts_name_both_sides_and_the_recommendation_has_its_reason(printed: str) -> None:
    assert "ort-int8 against ort: 7.1 % faster [5.9, 8.4] (end to end, p50)" in printed
    assert "ort-int8 against ort: no difference detectable (compute only, p50)" in printed
    assert "recommended: ort-int8, fastest at p90 end to end, and its gate held" in printed


def test_what_cannot_be_published_says_why_each_reason_once(printed: str) -> None:
    assert "not publishable: --quick" in printed
    assert printed.count("other processes took 14 % of the CPU") == 1


def test_a_disturbance_that_does_not_forbid_publishing_is_still_shown(
    latency_record: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    latency_record |= {"publishable": True, "why_not": []}
    print_report(latency_record)
    printed = capsys.readouterr().out
    assert "disturbed: other processes took 14 % of the CPU" in printed
    assert "not publishable" not in printed
    assert "publishable" in printed


def test_every_batch_is_shown_also_where_one_was_not_measured(
    latency_record: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    latency_record["by_batch"].append(
        {"candidate": "ort", "batch": 128, "samples_per_second": 3400.0, "low": 3300.0, "high": 3500.0}
    )
    print_report(latency_record)
    printed = capsys.readouterr().out
    assert "3,400 [3,300, 3,500]" in printed
    assert "batch 128" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_energy_has_a_column_only_where_it_could_be_read(
    printed: str, latency_record: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "energy" not in printed
    latency_record["candidates"][0]["energy_j"] = 81.2
    print_report(latency_record)
    assert "81.2 J" in capsys.readouterr().out


def test_a_record_of_a_machine_that_hides_everything_is_still_printed(
    latency_record: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    latency_record["conditions"] = {"machine": {}, "before": {}, "during": {}, "after": {}}
    latency_record["candidates"][0] |= {"cold_start": None, "peak_memory_mb": None, "size_mb": None}
    print_report(latency_record)
    assert "an unknown processor, cores unknown" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.63449, "0.634"),
        (5.012, "5.01"),
        (12.34, "12.3"),
        (999.9, "1,000"),
        (1249.6, "1,250"),
        (0.0038, "0.004"),
        (0.0, "0"),
    ],
)
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert digits(value) == shown


@pytest.mark.parametrize(("factor", "unit"), [(0.02, "µs"), (1.0, "ms"), (5000.0, "s")])
def test_the_unit_fits_the_values_and_80_columns_suffice(
    latency_record: dict[str, Any], capsys: pytest.CaptureFixture[str], factor: float, unit: str
) -> None:
    for one in latency_record["candidates"]:
        for level in one["measures"]["compute"]["percentiles"].values():
            level |= {key: value * factor for key, value in level.items() if key != "refused"}
    print_report(latency_record)
    printed = capsys.readouterr().out
    assert f"compute only, {unit} a query" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_a_verdict_about_b_names_it(latency_record: dict[str, Any]) -> None:
    comparison = {**latency_record["comparisons"][0], "verdict": "B 2.0 % faster [1.1, 3.0]"}
    assert verdict(comparison) == "ort against torch: 2.0 % faster [1.1, 3.0]"


def test_a_verdict_about_a_turns_the_sentence_round(latency_record: dict[str, Any]) -> None:
    comparison = {**latency_record["comparisons"][0], "verdict": "torch 2.0 % faster [1.1, 3.0]"}
    assert verdict(comparison) == "torch against ort: 2.0 % faster [1.1, 3.0]"


def test_offline_has_images_a_second_and_no_table_of_dashes(
    latency_record: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    latency_record |= {"scenario": "offline", "recommendation": {"candidate": None, "reason": "no gate was held"}}
    for one in latency_record["candidates"]:
        for values in one["measures"].values():
            values |= {"percentiles": {"50": {"refused": "offline asks one query a block"}}, "grid_ms": []}
    print_report(latency_record)
    printed = capsys.readouterr().out
    assert "p50  " not in printed
    assert "images a second" in printed
    assert "recommended: none, no gate was held" in printed


def test_the_server_scenario_shows_the_rate_that_it_found(
    latency_record: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    latency_record["scenario"] = "server"
    latency_record["settings"]["bound_ms"] = 15.0
    for one in latency_record["candidates"]:
        for values in one["measures"].values():
            values |= {"target_qps": 777.0, "loadgen": {**values["loadgen"], "valid": True}}
    print_report(latency_record)
    printed = capsys.readouterr().out
    assert "queries a second at which p99 stays below 15.0 ms" in printed
    assert printed.count("777") == 6
    assert "(!)" not in printed


def test_a_rate_that_did_not_hold_is_not_headed_as_one_that_does(
    latency_record: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    latency_record["scenario"] = "server"
    latency_record["settings"]["bound_ms"] = 15.0
    for one in latency_record["candidates"]:
        for values in one["measures"].values():
            values |= {"target_qps": 777.0, "loadgen": {**values["loadgen"], "valid": one["name"] != "ort"}}
    print_report(latency_record)
    printed = " ".join(capsys.readouterr().out.split())
    assert "queries a second that were asked; (!): not so that p99 stays below 15.0 ms" in printed
    assert "at which p99 stays below" not in printed
    assert printed.count("(!) 777") == 2
    assert printed.count(" 777") == 6


def test_the_heading_says_what_was_timed_on_what_and_how_often(latency_record: dict[str, Any]) -> None:
    text = "\n".join(heading(latency_record))
    assert "single stream" in text
    assert "64 real samples of 250 x 250 pixels, 14.2 kB (medians): the validation split of smoking" in text
    assert "96 to 12,000 queries a candidate and measure, in 8 blocks taken in turns" in text
    assert "Intel(R) Xeon(R) Platinum 8481C Processor, 2 cores; threads: 2" in text


@pytest.mark.parametrize(
    ("scenario", "images", "batch", "said"),
    [
        ("single", 1, 1, "1 image a query"),
        ("multi", 2, 8, "8 pairs a query"),
        ("server", 1, 8, "up to 8 images answered at once"),
        ("offline", 2, 32, "up to 32 pairs answered at once"),
    ],
)
def test_the_heading_does_not_take_what_is_gathered_for_a_query(
    latency_record: dict[str, Any], scenario: str, images: int, batch: int, said: str
) -> None:
    latency_record["scenario"] = scenario
    latency_record["settings"]["batch"] = batch
    latency_record["settings"]["samples"]["images"] = images
    assert heading(latency_record)[0].endswith(f"; {said}")
