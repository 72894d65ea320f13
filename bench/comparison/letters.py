"""A compact letter display: entries that share a letter cannot be told apart (Piepho, J. Comput. Graph. Stat. 13, 2004)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from string import ascii_lowercase

__all__ = ["MOST_ENTRIES", "letters"]

#: Of more entries nobody reads the letters.
MOST_ENTRIES = 60


def letters(numbers: Sequence[int], different: Collection[tuple[int, int]]) -> dict[int, str] | None:
    """Entry -> its letters, "a" the first one's. Entries of `different` share none, any two others at least one.

    None where the alphabet is too short.
    """
    groups = _groups(numbers, {frozenset(pair) for pair in different})
    if len(groups) > len(ascii_lowercase):
        return None
    named = list(zip(ascii_lowercase, groups, strict=False))
    return {one: "".join(letter for letter, group in named if one in group) for one in numbers}


def _groups(numbers: Sequence[int], apart: Collection[frozenset[int]]) -> list[list[int]]:
    """Groups whose members are all tied with each other, such that every tied pair is in one of them."""
    found: list[list[int]] = []
    covered: set[frozenset[int]] = set()
    for place, first in enumerate(numbers):
        alone = not any(first in group for group in found)
        for second in numbers[place + 1 :]:
            pair = frozenset((first, second))
            if pair not in apart and pair not in covered:
                found.append(_extended([first, second], numbers, apart))
                covered |= {frozenset((a, b)) for a in found[-1] for b in found[-1] if a != b}
                alone = False
        if alone:
            found.append([first])
    return sorted(found, key=lambda group: [numbers.index(one) for one in group])


def _extended(group: list[int], numbers: Sequence[int], apart: Collection[frozenset[int]]) -> list[int]:
    """The group with everybody who is tied with all of it, in the order of the numbers."""
    for one in numbers:
        if one not in group and all(frozenset((one, member)) not in apart for member in group):
            group.append(one)
    return sorted(group, key=list(numbers).index)
