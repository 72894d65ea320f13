"""Answers as a table, as CSV, or as one JSON object. Tables and CSV are written as the answers come."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from bench.words import shorten
from bench_export.prediction.answers import Answer, printable, shown_path

if TYPE_CHECKING:
    from bench_export.predictor import Predictor

__all__ = ["Format", "as_csv", "as_json", "as_table", "terminal_width", "wants_bold"]

Format: TypeAlias = Literal["table", "csv", "json"]

JSON_SCHEMA = 1  # as bench.console's, which would import rich
_NARROWEST = 16


def as_table(
    answers: Iterable[Answer], predictor: Predictor, items: Sequence[Any], *, top: int, width: int | None, bold: bool
) -> Iterator[str]:
    """Lines: path (of pairs two), class, probability; of the best `top` classes a line each. Bad images are left out.

    Paths are shortened where a line would be longer than `width`.
    """
    names, pairs = predictor.classes, predictor.takes_pairs
    heads = ("first", "second", "answer", "score") if pairs else ("image", "class", "probability")
    paths = _widths(items, heads[: 1 + pairs])
    answer = max(len(heads[-2]), *map(len, names))
    if width is not None:
        room = width - sum((answer, len(heads[-1]), 2 * (len(heads) - 1)))
        paths = [max(_NARROWEST, min(longest, room // len(paths))) for longest in paths]
    line = "  ".join([*(f"{{:{one}}}" for one in paths), f"{{:{answer}}}", f"{{:>{len(heads[-1])}}}"])
    head = line.format(*heads)
    yield f"\x1b[1m{head}\x1b[0m" if bold else head
    for one in answers:
        if one.reason is None:
            shown = [
                shorten(printable(path), longest, head=0.3) for path, longest in zip(one.paths, paths, strict=True)
            ]
            for label in one.best(1 if pairs else top):
                value = f"{one.probabilities[1]:.4f}" if pairs else f"{one.probabilities[label]:.2%}"
                yield line.format(*shown, names[label], value)
                shown = [""] * len(shown)


def as_csv(answers: Iterable[Answer], predictor: Predictor, *, top: int, probabilities: bool) -> Iterator[str]:
    """Lines with a head. Bad images have their reason in the last column and nothing in the others."""
    names, pairs = predictor.classes, predictor.takes_pairs
    columns = ["first", "second", "answer", "score"] if pairs else ["image", "class", "probability"]
    if not pairs:
        columns += [f"{name}_{rank}" for rank in range(2, top + 1) for name in ("class", "probability")]
        columns += [f"p({name})" for name in names] if probabilities else []
    yield _row([*columns, "error"])
    for one in answers:
        cells: list[Any] = [shown_path(path) for path in one.paths]
        if one.reason is None and pairs:
            cells += [names[one.guess], _number(one.probabilities[1]), ""]
        elif one.reason is None:
            for label in one.best(top):
                cells += [names[label], _number(one.probabilities[label])]
            cells += [*map(_number, one.probabilities), ""] if probabilities else [""]
        else:
            cells += [""] * (len(columns) - len(cells)) + [one.reason]
        yield _row(cells)


def as_json(answers: Iterable[Answer], predictor: Predictor, *, top: int, probabilities: bool) -> str:
    """One object: the model, the images with their classes, the bad ones with their reasons."""
    card, session = predictor.card, predictor.session
    found: list[dict[str, Any]] = []
    bad: list[dict[str, Any]] = []
    for one in answers:
        if one.reason is None:
            found.append(_as_json(one, predictor, top=top, probabilities=probabilities))
        else:
            bad.append({**_paths(one), "reason": one.reason})
    value = {
        "schema": JSON_SCHEMA,
        "model": str(session.path),
        "run": card.run or None,
        "task": card.task,
        "precision": card.precision,
        "providers": list(session.providers_used),
        "classes": list(card.classes),
        **({"threshold": card.threshold} if predictor.takes_pairs else {}),
        "answers": found,
        "bad": bad,
    }
    return json.dumps(value, indent=2, ensure_ascii=False)


def terminal_width(stream: Any) -> int | None:
    """Columns of a terminal; None where the stream is none."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def wants_bold(stream: Any) -> bool:
    """Whether a head may be bold: on a terminal, unless NO_COLOR is set."""
    return bool(stream.isatty()) and not os.environ.get("NO_COLOR")


def _as_json(one: Answer, predictor: Predictor, *, top: int, probabilities: bool) -> dict[str, Any]:
    names = predictor.classes
    if predictor.takes_pairs:
        return {**_paths(one), "answer": names[one.guess], "score": _number(one.probabilities[1])}
    best = [{"class": names[label], "probability": _number(one.probabilities[label])} for label in one.best(top)]
    value: dict[str, Any] = {**_paths(one), **best[0]}
    if top > 1:
        value["top"] = best
    if probabilities:
        value["probabilities"] = dict(zip(names, map(_number, one.probabilities), strict=True))
    return value


def _paths(one: Answer) -> dict[str, str]:
    keys = ("image",) if len(one.paths) == 1 else ("first", "second")
    return {key: shown_path(path) for key, path in zip(keys, one.paths, strict=True)}


def _widths(items: Sequence[Any], heads: Sequence[str]) -> list[int]:
    """The longest path of each column."""
    columns: Iterable[tuple[Path, ...]] = zip(*items, strict=True) if len(heads) > 1 else [tuple(items)]
    return [
        max(len(head), *(len(printable(path)) for path in column)) for head, column in zip(heads, columns, strict=True)
    ]


def _number(value: Any) -> float:
    """A float32 with the digits that it has."""
    return float(f"{float(value):.7g}")


def _row(cells: Sequence[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()
