"""Reads a CSV file strictly: every fault is an error that names file and line."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from bench.errors import DataError
from bench.registry import near_miss

__all__ = ["Column", "Row", "read_table"]

#: A column's name, or its position from 0.
Column: TypeAlias = str | int


class Row(dict[str, str]):
    """The asked fields of a line by their role, and where they stand."""

    def __init__(self, fields: Mapping[str, str], *, file: Path, line: int) -> None:
        super().__init__(fields)
        self.file = file
        self.line = line

    @property
    def place(self) -> str:
        """File and line, for messages."""
        return f"{self.file}, line {self.line}"


def read_table(file: Path, columns: Mapping[str, Column], *, delimiter: str, header: bool) -> list[Row]:
    """The rows of a CSV file in UTF-8; of each the asked columns, given as role -> column. Blank lines do not count.

    Raises DataError for a file that is empty or no CSV in UTF-8, a column that it does not have, a row with another
    number of fields than the first, and an empty field in an asked column.
    """
    lines = list(_lines(file, delimiter))
    if len(lines) <= header:
        raise DataError(f"{file} holds no rows", hint="write one line an image into it")
    names = [name.strip() for name in lines[0][1]] if header else None
    num_fields = len(lines[0][1])
    positions = {role: _position(file, role, column, names, num_fields) for role, column in columns.items()}
    rows = []
    for line, fields in lines[int(header) :]:
        if len(fields) != num_fields:
            message = f"{file}, line {line}: {len(fields)} fields, the first line has {num_fields}"
            raise DataError(message, hint=f"put quotes around a field that contains the delimiter {delimiter!r}")
        row = Row({role: fields[place].strip() for role, place in positions.items()}, file=file, line=line)
        for role, value in row.items():
            if not value:
                raise DataError(f"{row.place}: the {role} is empty", hint="fill it in or remove the line")
        rows.append(row)
    return rows


def _lines(file: Path, delimiter: str) -> Iterator[tuple[int, Sequence[str]]]:
    with file.open(encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        try:
            for fields in reader:
                if fields:
                    yield reader.line_num, fields
        except UnicodeDecodeError as cause:
            raise DataError(f"{file} is not UTF-8: {cause}", hint="save it as CSV in UTF-8") from cause
        except csv.Error as cause:
            raise DataError(f"{file}, line {reader.line_num}: {cause}", hint="repair the line") from cause


def _position(file: Path, role: str, column: Column, names: Sequence[str] | None, num_fields: int) -> int:
    option = f"{role}_column"
    if names is not None and column in names:
        return names.index(str(column))
    if isinstance(column, int) or (names is None and column.isdecimal()):
        if 0 <= int(column) < num_fields:
            return int(column)
        message = f"{file} has no column {column} ({option}); its columns are 0 to {num_fields - 1}"
        raise DataError(message, hint=f"set {option} to one of them, counted from 0")
    if names is None:
        message = f"{file}: without a header {option} must be a position, and it is {column!r}"
        raise DataError(message, hint=f"--set dataset.{option}=0 is the first column")
    hint = f"--set dataset.{option}=NAME"
    if num_fields == 1 and (other := next((mark for mark in ";\t|," if mark in names[0]), None)):
        hint = f"the fields seem to be divided by {other!r}: set delimiter = {other!r}"
    message = f"{file} has no column {column!r} ({option}){near_miss(column, names)}; its columns: {', '.join(names)}"
    raise DataError(message, hint=hint)
