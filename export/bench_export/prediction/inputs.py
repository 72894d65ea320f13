"""Which images a command line means: files, folders, globs, and lists from files or stdin; for some models in pairs."""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from bench.errors import RecipeError

__all__ = ["EXTENSIONS", "Pair", "find_images", "find_pairs"]

#: What counts as an image in a folder or a glob. A file that is named by itself is taken whatever it is called.
EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

#: Files that are lists of images.
LISTS = (".csv", ".tsv", ".txt")

STDIN = "-"

Pair: TypeAlias = tuple[Path, Path]


def find_images(arguments: Sequence[str], *, read_stdin: Callable[[], bytes]) -> list[Path]:
    """The images that the arguments name, in their order; those of a folder or a glob sorted.

    Raises RecipeError for a path that is not there, and for a folder, a glob or a list without images.
    """
    found: list[Path] = []
    for argument in arguments:
        if _is_list(argument):
            found += _entries(argument, read_stdin)
        else:
            found += _expand(argument)
    return found


def find_pairs(arguments: Sequence[str], *, read_stdin: Callable[[], bytes]) -> list[Pair]:
    """The pairs that the arguments name: lists hold pairs, other arguments are taken two by two.

    Where one of the two means several images (a folder, a glob), the other one is compared with each of them. Raises
    RecipeError as `find_images` does, and where one of two is missing or both mean several.
    """
    found: list[Pair] = []
    waiting: str | None = None
    for argument in arguments:
        if _is_list(argument):
            found += _pair_entries(argument, read_stdin)
        elif waiting is None:
            waiting = argument
        else:
            found += _all_against_all(waiting, argument)
            waiting = None
    if waiting is not None:
        raise RecipeError(
            f"{waiting} has no second image: this model compares two",
            hint="name two images a pair, one image and a folder, or a list of two columns (see --help)",
        )
    return found


def _is_list(argument: str) -> bool:
    path = Path(argument)
    return argument == STDIN or (path.suffix.lower() in LISTS and _holds(path.is_file))


def _holds(check: Callable[[], bool]) -> bool:
    """What a path's check says; no for a name that no file can have, such as one that is too long."""
    try:
        return check()
    except OSError:
        return False


def _expand(argument: str) -> list[Path]:
    """The images of one file, folder or glob."""
    path = Path(argument)
    if _holds(path.is_dir):
        found = list(_below(path))
        what = "folder"
    elif _holds(path.exists):
        return [path]
    elif glob.has_magic(argument):
        places = [Path(name) for name in sorted(glob.glob(argument, recursive=True))]  # noqa: PTH207  # ~ and absolute
        found = [place for place in places if place.suffix.lower() in EXTENSIONS and place.is_file()]
        what = "pattern"
    else:
        raise RecipeError(f"{argument}: there is no such file or folder")
    if not found:
        shown = ", ".join(extension[1:] for extension in EXTENSIONS)
        raise RecipeError(f"{argument}: no image in this {what}", hint=f"these count as images: {shown}")
    return found


def _below(folder: Path) -> Iterator[Path]:
    """The images at any depth, sorted, hidden ones left out; links to folders are followed, each folder once."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in sorted(names):
            if not name.startswith(".") and name.lower().endswith(EXTENSIONS):
                yield Path(place, name)


def _lines(argument: str, read_stdin: Callable[[], bytes]) -> tuple[list[str], Path]:
    """The lines that are not empty, and the folder that their paths start from."""
    try:
        content = read_stdin() if argument == STDIN else Path(argument).read_bytes()
    except OSError as cause:
        raise RecipeError(f"{_name_of(argument)}: cannot be read: {cause.strerror}") from cause
    text = os.fsdecode(content).removeprefix("\ufeff")
    lines = text.split("\0") if "\0" in text else text.splitlines()
    return [line for line in lines if line.strip()], Path() if argument == STDIN else Path(argument).parent


def _entries(argument: str, read_stdin: Callable[[], bytes]) -> Iterator[Path]:
    """One path a line; of a table its first column."""
    lines, home = _lines(argument, read_stdin)
    names = lines
    if Path(argument).suffix.lower() in {".csv", ".tsv"}:
        names = [row[0].strip() for row in _rows(lines, argument)]
        names = names[_is_head(names[:1], home) :]
    if not names:
        raise RecipeError(f"{_name_of(argument)}: names no image", hint="one path a line")
    return (home / name for name in names)


def _pair_entries(argument: str, read_stdin: Callable[[], bytes]) -> Iterator[Pair]:
    """Two paths a line, separated by a comma or a tab."""
    lines, home = _lines(argument, read_stdin)
    rows = [[cell.strip() for cell in row] for row in _rows(lines, argument)]
    bad = [number for number, row in enumerate(rows, 1) if len(row) < 2 or not all(row[:2])]  # noqa: PLR2004
    if bad:
        shown = ", ".join(map(str, bad[:5])) + (" ..." if len(bad) > 5 else "")  # noqa: PLR2004
        raise RecipeError(
            f"{_name_of(argument)}: not two images in line {shown}", hint="two paths a line: first.jpg,second.jpg"
        )
    rows = rows[_is_head(rows[0][:2], home) if rows else 0 :]
    if not rows:
        raise RecipeError(f"{_name_of(argument)}: names no pair", hint="two paths a line: first.jpg,second.jpg")
    return ((home / row[0], home / row[1]) for row in rows)


def _rows(lines: list[str], argument: str) -> list[list[str]]:
    tabs = bool(lines) and "\t" in lines[0]
    try:
        return list(csv.reader(lines, delimiter="\t" if tabs else ","))
    except csv.Error as cause:
        raise RecipeError(
            f"{_name_of(argument)}: no table: {cause}", hint="two paths a line: first.jpg,second.jpg"
        ) from cause


def _is_head(first: Sequence[str], home: Path) -> bool:
    """Whether a table's first row names its columns instead of files."""
    return bool(first) and not any(Path(name).suffix or (home / name).exists() for name in first)


def _name_of(argument: str) -> str:
    return "the list on stdin" if argument == STDIN else argument


def _all_against_all(first: str, second: str) -> Iterable[Pair]:
    """One with one, or one with each of several."""
    firsts, seconds = _expand(first), _expand(second)
    if len(firsts) > 1 and len(seconds) > 1:
        raise RecipeError(
            f"{first} and {second} are {len(firsts)} and {len(seconds)} images: which of them are pairs?",
            hint="give a list of two columns (pairs.csv, or - for stdin), or one image and a folder",
        )
    return [(one, other) for one in firsts for other in seconds]
