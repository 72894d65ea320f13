"""bench latency: how fast a model is, under MLPerf's load generator, with intervals, and which one to ship."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.completion import RUN
from bench.errors import RecipeError

if TYPE_CHECKING:
    from bench.progress import Progress
    from bench.record import Run
    from bench_export.latency.candidates import Candidate
    from bench_export.latency.samples import Samples
    from bench_export.latency.settings import Settings

__all__ = ["latency"]

_LARGEST_BATCH = 4096


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="MODEL.onnx|RUN...", shell_complete=RUN.shell_complete)
@click.option(
    "--scenario",
    type=click.Choice(["single", "multi", "server", "offline"]),
    default="single",
    show_default=True,
    help="MLPerf's: one sample after the other, eight at once, arriving at random, or all at once.",
)
@click.option("--against", help="Also measure torch, torch-compile, ort, ort-int8, ort-fp16 of the run, by commas.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Of each candidate; default: the runtime's choice.")
@click.option("--batch", "batches", help="Throughput at these batches, such as 1,8,32; the largest serves offline.")
@click.option("--quick", is_flag=True, help="A glance of 2 s: not publishable.")
@click.option(
    "--duration",
    "duration_s",
    type=click.FloatRange(0.1, 86_400),
    default=10.0,
    show_default=True,
    help="Seconds for each candidate and measure; MLPerf asks for 600.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of samples and order.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The dataset's folder, or any folder of images.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="cuda: a node on the CPU is an error.",
)
@click.option("--tune", is_flag=True, help="First find the fastest session options, and keep them in the files.")
@click.option(
    "--qps", type=click.FloatRange(0, 1e6, min_open=True), help="server: this rate instead of the largest that passes."
)
@click.option(
    "--bound-ms",
    type=click.FloatRange(0, 60_000, min_open=True),
    default=15.0,
    show_default=True,
    help="server: what p99 must stay below.",
)
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write the page with plots there.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as one JSON object.")
def latency(
    targets: tuple[str, ...],
    *,
    against: str | None,
    threads: int | None,
    seed: int,
    data: Path | None,
    device: Any,
    tune: bool,
    html: Path | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Measure how fast models are, with MLPerf's LoadGen, and compare them.

    Candidates run in warm processes of their own, in turns, on the same real images. Percentiles and comparisons come
    with 95 % intervals, for which queries count as independent; the rates of the server scenario come with the range
    that the search left open. What the sample cannot support is not shown.

    \b
    bench latency RUN --against torch,ort,ort-int8
    bench latency model.onnx --scenario offline --batch 1,8,32
    bench latency model.onnx --scenario server --bound-ms 10 --quick
    """
    from bench.console import TerminalProgress, print_json
    from bench_export.latency.candidates import find_candidates
    from bench_export.latency.loadgen import check_available
    from bench_export.latency.measure import measure

    if tune and threads:
        raise RecipeError("--tune finds the number of threads itself", hint="leave out --threads")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # which ends it as Ctrl-C does, and leaves nothing
    check_available()
    progress = TerminalProgress()
    kinds = [part.strip() for part in (against or "").split(",") if part.strip()]
    settings = _settings(seed=seed, **asked)
    candidates, run = find_candidates(targets, kinds, threads=threads, device=device)
    samples = _samples(candidates, run, data, seed)
    if not samples.real:
        progress.warn("the samples are made up, as no real images were found; --data names a folder of them")
    if tune:
        candidates = [_tuned(candidate, settings, samples, progress) for candidate in candidates]
    record = measure(candidates, samples, settings, progress=progress)
    _show(record, run, html=html, as_json=as_json, progress=progress, print_json=print_json)


def _settings(
    *, scenario: Any, batches: str | None, quick: bool, duration_s: float, seed: int, qps: float | None, bound_ms: float
) -> Settings:
    from bench_export.latency.settings import Settings

    try:
        sizes = tuple(sorted({int(part) for part in batches.split(",")})) if batches else ()
    except ValueError:
        sizes = (0,)
    if not all(1 <= size <= _LARGEST_BATCH for size in sizes):
        raise RecipeError(
            f"--batch {batches}: batches are numbers from 1 on, up to {_LARGEST_BATCH:,}", hint="--batch 1,8,32"
        )
    for name, value in (("--duration", duration_s), ("--bound-ms", bound_ms), ("--qps", qps or 0.0)):
        if not math.isfinite(value):
            raise RecipeError(f"{name} {value}: not a number")
    settings = Settings(
        scenario=scenario,
        duration_s=duration_s,
        seed=seed,
        batch=max(sizes, default=32 if scenario == "offline" else 1),
        batches=sizes,
        qps=qps or 0.0,
        bound_ms=bound_ms,
    )
    return settings.quickened() if quick else settings


def _samples(candidates: list[Candidate], run: Run | None, data: Path | None, seed: int) -> Samples:
    from bench_export.latency.samples import collect, decoding_of

    card = next((one.card for one in candidates if one.card), None)
    how, pairs = decoding_of(card, run)
    return collect(how, pairs=pairs, run=run, card=card, data=data, seed=seed)


def _tuned(candidate: Candidate, settings: Settings, samples: Samples, progress: Progress) -> Candidate:
    """The candidate with the options that are the fastest for it here, which its file keeps; torch has none."""
    from dataclasses import replace

    if candidate.runtime != "ort":
        return candidate
    from bench_export.latency import tune

    found = tune.tune(
        candidate.path,
        scenario=settings.scenario,
        batch=settings.at_once,
        samples=samples,
        device=candidate.device,
        seed=settings.seed,
        report=lambda done, total: progress.advance(f"tuning {candidate.name}", done, total),
    )
    tune.write(candidate.path, found)
    return replace(candidate, tuning=found)


def _show(
    record: dict[str, Any], run: Run | None, *, html: Path | None, as_json: bool, progress: Progress, print_json: Any
) -> None:
    if html is not None:
        from bench_export.latency.page import write_page

        write_page(record, html)
        progress.note(f"page: {html}")
    if as_json:
        print_json(record)
    else:
        from bench_export.latency.table import print_report

        print_report(record)
    if run is not None:
        _log(record, run, progress)


def _log(record: dict[str, Any], run: Run, progress: Progress) -> None:
    """Beside the run and on its entry in MLflow. A tracking server that is away costs no measurement."""
    from bench.errors import BenchError

    try:
        from bench_export.latency import tracking

        tracking.log(record, run)
    except ImportError as cause:
        progress.note(f"not logged to MLflow, which is not installed here ({cause})")
    except (BenchError, OSError) as cause:
        progress.warn(f"not logged: {cause}")
