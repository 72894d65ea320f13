"""Lists of pairs of photographs in the format of Labeled Faces in the Wild, and more pairs of the same photographs."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.errors import DataError
from bench_plugins.datasets._problems import Problems

__all__ = ["Pair", "Photo", "draw_pairs", "read_pairs"]

BAD_LINE = "lines that cannot be read"
COUNTS = "lists that do not hold what their first line says"
TWICE = "pairs that a list names twice"
ITSELF = "pairs of a photograph with itself"

REMEDIES: Mapping[str, str] = {
    BAD_LINE: "a list starts with the number of pairs of each kind (for view 2: of folds and of pairs); then NAME 1 2 "
    "is a pair of one person and NAME 1 OTHER 2 one of two",
    COUNTS: "get the list anew, or correct its first line",
    TWICE: "remove one of the lines",
    ITSELF: "correct or remove the lines",
}


class Photo(NamedTuple):
    """A photograph: whose, and its number."""

    identity: str
    number: int

    @property
    def name(self) -> str:
        """Such as Aaron_Peirsol_0001."""
        return f"{self.identity}_{self.number:04d}"


class Pair(NamedTuple):
    """Two photographs; `line` is where the list names them (0: nowhere), `fold` counts from 0."""

    first: Photo
    second: Photo
    fold: int = 0
    line: int = 0

    @property
    def same(self) -> bool:
        """Whether both show one person."""
        return self.first.identity == self.second.identity

    @property
    def key(self) -> tuple[Photo, ...]:
        """The two in a fixed order."""
        return tuple(sorted((self.first, self.second)))


def read_pairs(file: Path, problems: Problems, *, folds: bool) -> list[Pair]:
    """The pairs of a list, in its order; faults are noted.

    The first line gives the number of pairs of each kind, with `folds` preceded by the number of folds; each fold has
    as many pairs of one person ("NAME 1 2") as of two ("NAME 1 OTHER 2"). Fields are divided by tabs or blanks.
    """
    text = file.read_text(encoding="utf-8-sig", errors="replace")
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    line, header = lines[0] if lines else (1, [])
    numbers = [int(field) for field in header if field.isdecimal() and int(field) > 0]
    if len(numbers) != len(header) or len(numbers) != 1 + folds:
        wanted = "two numbers, of folds and of pairs" if folds else "one number, of pairs"
        problems.add(BAD_LINE, f"{file}, line {line}: {' '.join(header)[:80]!r}, expected {wanted}")
        return []
    num_folds, num_pairs = (numbers[0] if folds else 1), numbers[-1]
    pairs: list[Pair] = []
    for position, (number, fields) in enumerate(lines[1:]):
        fold = min(position // (2 * num_pairs), num_folds - 1)
        pair = _parse(fields, fold, number)
        if pair is None:
            problems.add(BAD_LINE, f"{file}, line {number}: {' '.join(fields)[:80]!r}")
        else:
            pairs.append(pair)
    _check_counts(file, pairs, len(lines) - 1, (num_folds, num_pairs), problems)
    _check_pairs(file, pairs, problems)
    return pairs


def draw_pairs(listed: Sequence[Pair], count: int, *, seed: int) -> list[Pair]:
    """Draw `count` further pairs of one person and as many of two from the photographs of the listed pairs.

    Pairs of one person are drawn uniformly from all that are not listed. For the others two photographs are drawn
    uniformly until they show two persons and are no pair yet. Raises DataError where there are not as many.
    """
    photos = sorted({photo for pair in listed for photo in (pair.first, pair.second)})
    known = {pair.key for pair in listed}
    of_one: dict[str, list[Photo]] = {}
    for photo in photos:
        of_one.setdefault(photo.identity, []).append(photo)
    same = [pair for group in of_one.values() for pair in combinations(group, 2) if pair not in known]
    num_different = len(photos) * (len(photos) - 1) // 2 - len(same) - len(known)
    for kind, available in (("of one person", len(same)), ("of two persons", num_different)):
        if available < count:
            message = (
                f"extra_pairs = {count:,}, but the training photographs form only {available:,} further pairs {kind}"
            )
            raise DataError(message, hint=f"--set dataset.extra_pairs={min(len(same), num_different)}")
    generator = np.random.default_rng(seed)
    chosen = generator.choice(len(same), size=count, replace=False)
    drawn = [Pair(*same[position]) for position in chosen]
    while len(drawn) < 2 * count:
        first, second = (photos[position] for position in generator.integers(len(photos), size=2))
        pair = Pair(first, second)
        if not pair.same and pair.key not in known:
            known.add(pair.key)
            drawn.append(pair)
    return drawn


def _parse(fields: Sequence[str], fold: int, line: int) -> Pair | None:
    """The pair of a line; None where it is none."""
    if len(fields) == 3:  # noqa: PLR2004 -- NAME 1 2
        name, one, two = fields
        other = name
    elif len(fields) == 4 and fields[0] != fields[2]:  # noqa: PLR2004 -- NAME 1 OTHER 2
        name, one, other, two = fields
    else:
        return None
    numbers = [int(field) if field.isdecimal() else 0 for field in (one, two)]
    return Pair(Photo(name, numbers[0]), Photo(other, numbers[1]), fold, line) if min(numbers) > 0 else None


def _check_counts(
    file: Path, pairs: Sequence[Pair], num_lines: int, promised: tuple[int, int], problems: Problems
) -> None:
    num_folds, num_pairs = promised
    if num_lines != 2 * num_pairs * num_folds:
        each = f"{num_folds} folds with {num_pairs:,}" if num_folds > 1 else f"{num_pairs:,}"
        problems.add(COUNTS, f"{file}: {each} + {num_pairs:,} pairs announced, {num_lines:,} lines found")
    elif num_lines == len(pairs):  # otherwise a line that cannot be read is what is missing
        for fold in range(num_folds):
            same = [pair.same for pair in pairs if pair.fold == fold]
            if sum(same) != num_pairs:
                where = f"{file}, fold {fold + 1}" if num_folds > 1 else str(file)
                told = f"{sum(same):,} pairs of one person and {len(same) - sum(same):,} of two"
                problems.add(COUNTS, f"{where}: {told}, {num_pairs:,} of each announced")


def _check_pairs(file: Path, pairs: Sequence[Pair], problems: Problems) -> None:
    first: dict[tuple[Photo, ...], int] = {}
    for pair in pairs:
        if pair.first == pair.second:
            problems.add(ITSELF, f"{file}, line {pair.line}: {pair.first.name}")
        elif pair.key in first:
            names = f"{pair.first.name} and {pair.second.name}"
            problems.add(TWICE, f"{file}, line {pair.line}: {names}, as in line {first[pair.key]}")
        first.setdefault(pair.key, pair.line)
