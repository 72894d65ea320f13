"""What `bench predict` does, from the paths to the exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from bench.errors import BenchError, DataError, RecipeError
from bench.files import atomic
from bench_export.prediction import outputs
from bench_export.prediction.answers import Answer, answers, printable
from bench_export.prediction.inputs import find_images, find_pairs
from bench_export.predictor import Predictor
from bench_export.session import check_file, open_session

if TYPE_CHECKING:
    from bench.parallel import Report

__all__ = ["Options", "open_predictor", "run"]


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `bench predict`, under their names there (`form` is --format)."""

    form: outputs.Format | None = None
    top: int = 1
    probabilities: bool = False
    output: Path | None = None
    skip_bad: bool = False
    batch_size: int = 32
    threads: int | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    labels: str | None = None
    preprocess: str | None = None


def run(model: Path, paths: Sequence[str], options: Options) -> None:
    """Predict and print. Raises DataError at the end, when all answers are out, where images could not be used."""
    predictor = open_predictor(model, options)
    find = find_pairs if predictor.takes_pairs else find_images
    items: list[Any] = list(find(paths, read_stdin=sys.stdin.buffer.read))
    form = options.form or _format_of(options.output)
    bad: list[Answer] = []
    with _target(options.output) as target:
        report = _report(len(items), options, form)
        found = _noting(answers(predictor, items, batch_size=options.batch_size, report=report), bad)
        for line in _lines(found, predictor, items, form, options, target):
            target.write(line + "\n")
    _tell(bad, len(items), options)


def open_predictor(model: Path, options: Options) -> Predictor:
    """The file, described by its own card, or by --labels and --preprocess where it has none."""
    check_file(model)
    session = open_session(model, device=options.device, threads=options.threads)
    if session.card is None:
        from bench_export.prediction.foreign import describe_foreign

        return describe_foreign(session, labels=options.labels, preprocess=options.preprocess)
    if options.labels or options.preprocess:
        raise RecipeError(
            f"{model} says its classes and its preprocessing itself", hint="leave out --labels and --preprocess"
        )
    return Predictor(session, session.card)


def _lines(
    found: Iterator[Answer], predictor: Predictor, items: Sequence[Any], form: str, options: Options, target: TextIO
) -> Iterator[str]:
    top = min(options.top, len(predictor.classes))
    if form == "json":
        yield outputs.as_json(found, predictor, top=top, probabilities=options.probabilities)
    elif form == "csv":
        yield from outputs.as_csv(found, predictor, top=top, probabilities=options.probabilities)
    else:
        yield from outputs.as_table(
            found,
            predictor,
            items,
            top=len(predictor.classes) if options.probabilities else top,
            width=outputs.terminal_width(target),
            bold=outputs.wants_bold(target),
        )


def _noting(found: Iterator[Answer], bad: list[Answer]) -> Iterator[Answer]:
    for one in found:
        if one.reason is not None:
            bad.append(one)
        yield one


@contextmanager
def _target(output: Path | None) -> Iterator[TextIO]:
    """Stdout, or a file that is there whole or not at all."""
    if output is None:
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # it is a TextIOWrapper
        yield sys.stdout
        return
    try:
        with atomic(output) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            yield file
    except OSError as cause:
        raise BenchError(f"{output}: cannot be written: {cause.strerror}") from cause


def _format_of(output: Path | None) -> outputs.Format:
    suffix = output.suffix.lower() if output is not None else ""
    return "csv" if suffix == ".csv" else "json" if suffix == ".json" else "table"


def _report(count: int, options: Options, form: str) -> Report | None:
    """Progress on stderr, for more than a batch, where no lines on the same terminal show it."""
    if count <= options.batch_size or (form != "json" and options.output is None and sys.stdout.isatty()):
        return None
    from bench.console import TerminalProgress

    progress = TerminalProgress()
    return lambda done, total: progress.advance("images", done, total)


def _tell(bad: Sequence[Answer], count: int, options: Options) -> None:
    """List the bad images: as an error, or as a warning where they were to be skipped."""
    if not bad:
        return
    lines = [f"{' and '.join(map(printable, one.paths))}: {one.reason}" for one in bad]
    message = "\n  ".join([f"{len(bad):,} of {count:,} could not be used", *lines])
    if not options.skip_bad:
        raise DataError(message, hint="--skip-bad exits 0 all the same")
    sys.stderr.write(f"warning: {message}\n")
