"""Names and numbers for people."""

from __future__ import annotations

__all__ = ["shorten"]


def shorten(text: str, width: int, *, head: float = 0.5) -> str:
    """Both ends of a name that is too long, `head` of the width before the gap: what tells names apart is often last."""
    first = int(width * head)
    return text if len(text) <= width else f"{text[:first]}…{text[first + 1 - width :]}"
