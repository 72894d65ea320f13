"""A short way for the request that comes by the thousand: one plain POST /predict that arrives in one piece.

Most of what uvicorn takes for a request goes into h11, which handles everything that HTTP/1.1 allows. A request is taken
here only where nothing of that is needed; whatever looks the least unusual is left to h11, as it came.
"""

from __future__ import annotations

import http
import re
from collections.abc import Callable, MutableMapping
from typing import Any

from bench_export.serving.exchange import ASGIApp, Scope

__all__ = ["answer", "plain_request"]

_START = b"POST /predict HTTP/1.1\r\n"
_HEADER = re.compile(rb"([A-Za-z0-9-]+):[ \t]*([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)[ \t]*")
_NOT_PLAIN = {b"transfer-encoding", b"expect", b"upgrade", b"te", b"trailer", b"http2-settings"}
_LARGEST_HEAD = 8192
_MOST_DIGITS = 15  # of a length; Python refuses to read a number of thousands of digits
_CLOSE = (b"connection", b"close")

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus}


def plain_request(data: bytes) -> tuple[Scope, bytes] | None:
    """The ASGI scope and the body, where `data` is exactly one plain request to predict; else None."""
    if not data.startswith(_START):
        return None
    end = data.find(b"\r\n\r\n", 0, _LARGEST_HEAD)
    if end < 0:
        return None
    headers = []
    for line in data[len(_START) : end].split(b"\r\n"):
        match = _HEADER.fullmatch(line)
        if match is None:
            return None
        headers.append((match[1].lower(), match[2]))
    known = dict(headers)
    length = known.get(b"content-length", b"")
    if (
        len(known) != len(headers)  # a header that comes twice
        or b"host" not in known
        or not length.isdigit()
        or len(length) > _MOST_DIGITS
        or int(length) != len(data) - end - 4
        or known.get(b"connection", b"keep-alive").lower() != b"keep-alive"
        or not _NOT_PLAIN.isdisjoint(known)
    ):
        return None
    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": headers}
    return scope, data[end + 4 :]


async def answer(app: ASGIApp, scope: Scope, body: bytes, write: Callable[[bytes], None]) -> bool:
    """Run the application and write its response in one go; False where the connection is to be closed then."""
    message = {"type": "http.request", "body": body, "more_body": False}
    start: list[bytes] = []
    keep = True

    async def receive() -> MutableMapping[str, Any]:
        return message

    async def send(part: MutableMapping[str, Any]) -> None:
        nonlocal keep
        if part["type"] == "http.response.start":
            start.append(_STATUS_LINES[part["status"]])
            start.extend(b"%b: %b\r\n" % pair for pair in part["headers"])
            keep = _CLOSE not in part["headers"]
        else:
            write(b"".join([*start, b"\r\n", part["body"]]))

    await app(scope, receive, send)
    return keep
