"""The page for people: one HTML file without any reference to the network."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

__all__ = ["Page"]

_FOLDER = Path(__file__).parent


class Page:
    """page.html with page.css and page.js in it, and headers that let a browser run nothing else."""

    def __init__(self) -> None:
        style, script, markup = (
            (_FOLDER / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js", "html")
        )
        self.html = markup.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script).encode()
        policy = (
            f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src blob: data:;"
            " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self.headers = {"content-security-policy": policy, "referrer-policy": "no-referrer"}


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
