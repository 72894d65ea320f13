"""Line plots in characters: braille dots where the terminal's encoding has them, plain ASCII elsewhere.

Curves are told apart by a letter along them and by dots or a line, so that no colour is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from rich.text import Text

__all__ = ["Curve", "can_draw", "plot"]

#: The dots of a braille cell by (column, row), as bits above U+2800 (Unicode 17, Braille Patterns).
_BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_BRAILLE = 0x2800

_LEAST_WIDTH = 16
_LOG_RATIO = 30
_MARK_EVERY = 18
_TICK_EVERY_ROWS = 2


@dataclass(frozen=True, slots=True)
class Curve:
    """A line through points (x, y); one that is no number leaves a gap. `mark` is drawn along it, `best` is an x."""

    points: Sequence[tuple[float, float]]
    mark: str
    style: str = ""
    dotted: bool = False
    best: float | None = None

    def finite(self) -> list[tuple[float, float]]:
        """The points that can be drawn."""
        return [(x, y) for x, y in self.points if math.isfinite(y)]


@dataclass(frozen=True, slots=True)
class _Frame:
    """How values become places: width and height in dots, `low` to `high` from the bottom up."""

    first: float
    last: float
    low: float
    high: float
    log: bool
    width: int
    height: int

    def column(self, x: float) -> int:
        span = self.last - self.first
        return round((x - self.first) / span * (self.width - 1)) if span else self.width // 2

    def row(self, y: float) -> int:
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, y))
        return round((high - value) / (high - low) * (self.height - 1)) if high > low else self.height // 2


@dataclass(slots=True)
class _Cell:
    dots: set[tuple[int, int]] = field(default_factory=set)
    style: str = ""
    letter: str = ""


def can_draw(encoding: str | None) -> bool:
    """Whether an encoding has what the finer plots are made of."""
    try:
        "⣿│┤└─◆".encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def plot(
    curves: Sequence[Curve], *, x_label: str, width: int, height: int, percent: bool = False, unicode: bool = True
) -> list[Text]:
    """The plot's lines, at most `width` characters wide, `height` rows of them for the curves.

    The y axis is logarithmic where the values are positive and span a factor of 30; shares (`percent`) never are.
    """
    values = [y for curve in curves for _, y in curve.finite()]
    if not values:
        return [Text("no finite values", style="dim")]
    low, high = min(values), max(values)
    log = not percent and low > 0 and high / low > _LOG_RATIO
    ticks = {value: _label(value, percent=percent, step=step) for value, step in _ticks(low, high, height, log=log)}
    labels = max(len(label) for label in ticks.values())
    columns = max(_LEAST_WIDTH, width - labels - 2)
    numbers = [x for curve in curves for x, _ in curve.points]
    wide, tall = (2, 4) if unicode else (1, 1)
    frame = _Frame(min(numbers), max(numbers), low, high, log, columns * wide, height * tall)
    cells = [[_Cell() for _ in range(columns)] for _ in range(height)]
    for curve in curves:
        _draw(cells, curve, frame, wide=wide, tall=tall)
    for curve in curves:
        _mark_best(cells, curve, frame, wide=wide, tall=tall, sign="◆" if unicode else "*")
    for index, curve in enumerate(curves):
        _mark_along(cells, curve, frame, wide=wide, tall=tall, shift=(index + 0.5) / len(curves))
    rows = {frame.row(value) // tall: label for value, label in reversed(ticks.items())}
    lines = [_line(row, rows.get(number, ""), labels, unicode=unicode) for number, row in enumerate(cells)]
    return [*lines, *_x_axis(frame, labels, columns, wide, x_label, unicode=unicode)]


def _draw(cells: list[list[_Cell]], curve: Curve, frame: _Frame, *, wide: int, tall: int) -> None:
    for x, y in _dots(curve, frame):
        cell = cells[y // tall][x // wide]
        cell.dots.add((x % wide, y % tall))
        cell.style = curve.style


def _dots(curve: Curve, frame: _Frame) -> Iterator[tuple[int, int]]:
    """Every dot of a curve; of a dotted one each third on the way, and all that are its points."""
    places = [(frame.column(x), frame.row(y)) if math.isfinite(y) else None for x, y in curve.points]
    yield from (place for place in places if place is not None)
    for start, end in pairwise(places):
        if start is None or end is None:
            continue
        steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
        for step in range(1, steps):
            if curve.dotted and step % 3:
                continue
            share = step / steps
            yield round(start[0] + share * (end[0] - start[0])), round(start[1] + share * (end[1] - start[1]))


def _mark_best(cells: list[list[_Cell]], curve: Curve, frame: _Frame, *, wide: int, tall: int, sign: str) -> None:
    for x, y in curve.finite():
        if x == curve.best:
            cell = cells[frame.row(y) // tall][frame.column(x) // wide]
            cell.letter, cell.style = sign, curve.style


def _mark_along(cells: list[list[_Cell]], curve: Curve, frame: _Frame, *, wide: int, tall: int, shift: float) -> None:
    """The curve's letter at regular distances, shifted against the others', where no other sign stands."""
    places: dict[int, int] = {}
    for x, y in _dots(curve, frame):
        places.setdefault(x // wide, y // tall)
    free = [column for column in sorted(places) if not cells[places[column]][column].letter]
    wanted = shift * _MARK_EVERY
    for column in free:
        if column >= wanted or (wanted < _MARK_EVERY and column == free[-1]):  # a short curve has one as well
            cell = cells[places[column]][column]
            cell.letter, cell.style = curve.mark, curve.style
            wanted = column + _MARK_EVERY


def _line(row: list[_Cell], label: str, labels: int, *, unicode: bool) -> Text:
    axis = ("┤" if label else "│") if unicode else ("+" if label else "|")
    line = Text(label.rjust(labels) + " ", style="").append(axis, style="dim")
    for cell in row:
        line.append(_character(cell, unicode=unicode), style=cell.style)
    line.rstrip()
    return line


def _character(cell: _Cell, *, unicode: bool) -> str:
    if cell.letter:
        return cell.letter
    if not cell.dots:
        return " "
    return chr(_BRAILLE + sum(_BITS[x][y] for x, y in cell.dots)) if unicode else "."


def _x_axis(frame: _Frame, labels: int, columns: int, wide: int, name: str, *, unicode: bool) -> list[Text]:
    """The axis and the numbers below it, then its name."""
    numbers = [" "] * (columns + len(f"{frame.last:g}"))
    axis = ["─" if unicode else "-"] * columns
    free = 0
    for value in _whole_ticks(frame.first, frame.last, columns):
        place, text = frame.column(value) // wide, f"{value:g}"
        start = max(0, min(place - len(text) // 2, columns - len(text)))
        if start < free:
            continue
        numbers[start : start + len(text)] = text
        axis[place] = "┬" if unicode else "+"
        free = start + len(text) + 1
    margin = " " * (labels + 1)
    corner = "└" if unicode else "+"
    below = "".join(numbers).rstrip()
    return [Text(margin + corner + "".join(axis), style="dim"), Text(f"{margin} {below}"), Text(f"{margin} {name}")]


def _whole_ticks(first: float, last: float, columns: int) -> list[float]:
    """Whole numbers a round step apart; both ends where they fit."""
    step = max(1.0, _round_step((last - first) / max(1, columns // 10)))
    start = math.ceil(first / step) * step
    between = [start + index * step for index in range(int((last - start) / step) + 1)] if last >= start else []
    return sorted({first, *between})


def _ticks(low: float, high: float, height: int, *, log: bool) -> list[tuple[float, float]]:
    """(value, step) of round values from low to high, a few rows apart; the ends where there is nothing round."""
    wanted = max(2, height // _TICK_EVERY_ROWS)
    if log:
        every = math.ceil(math.log10(high / low) / wanted)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        parts = next((p for p in ((1, 2, 5), (1, 3)) if len(p) * len(powers) <= wanted + 1), (1,))
        found = [part * 10.0**power for power in powers[:: max(1, every)] for part in parts]
    else:
        step = _round_step((high - low) / wanted) if high > low else abs(high) or 1.0
        found = [index * step for index in range(math.ceil(low / step), math.floor(high / step) + 1)]
        if len(found) > 1:
            return [(value, step) for value in found]
    inside = [(value, value) for value in found if low <= value <= high]
    return inside if len(inside) > 1 else [(low, low), (high, low)]


def _round_step(step: float) -> float:
    """The next larger 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step)) if step > 0 else 1.0
    return next(part * power for part in (1, 2, 5, 10) if part * power >= step * (1 - 1e-9))


def _label(value: float, *, percent: bool, step: float) -> str:
    if not percent:
        return f"{value:.3g}"
    return f"{value:.0%}" if step >= 0.01 and abs(value * 100 - round(value * 100)) < 1e-6 else f"{value:.1%}"  # noqa: PLR2004
