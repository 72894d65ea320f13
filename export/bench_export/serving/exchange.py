"""Both ends of one HTTP exchange over ASGI: a body that may not grow without bound, and a small response."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

from bench_export.serving.limits import Limits, Refusal

__all__ = ["ASGIApp", "Disconnected", "Receive", "Scope", "Send", "header", "read_body", "respond", "respond_refusal"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

#: How long, and how many times the limit, is read on after a body was found too large: who still sends does not read
#: the answer, and closing at once would throw it away.
_LINGER_S = 2.0
_LINGER_FACTOR = 4

_CLOSE = (b"connection", b"close")
_BASIC_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Disconnected(Exception):  # nobody's error
    """The client has gone before its request was complete."""


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of that (lower-case) name."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


async def read_body(scope: Scope, receive: Receive, limits: Limits) -> bytes:
    """The whole body. Raises Refusal 413 where it is too large, whatever its length header says, and 408 for a slow one."""
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limits.max_bytes:
        if header(scope, b"expect") is None:  # else the client still waits for leave to send
            await _linger(receive, limits)
        raise _too_large(limits)
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            return await _read(receive, limits)
    except TimeoutError:
        reason = f"the body was not complete after {limits.body_timeout_s:g} s"
        raise Refusal(408, "too_slow", reason, headers=(_CLOSE,)) from None


async def respond(
    send: Send, status: int, content_type: bytes, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """A whole response at once."""
    start = [(b"content-type", content_type), (b"content-length", str(len(body)).encode()), *_BASIC_HEADERS, *headers]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})


async def respond_refusal(send: Send, refusal: Refusal) -> None:
    """A refusal as JSON."""
    await respond(send, refusal.status, b"application/json", refusal.body(), refusal.headers)


async def _read(receive: Receive, limits: Limits) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        part = message.get("body", b"")
        size += len(part)
        if size > limits.max_bytes:
            if message.get("more_body", False):
                await _linger(receive, limits)
            raise _too_large(limits)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def _linger(receive: Receive, limits: Limits) -> None:
    """Read on for a moment and throw it away, so that a client that sends first and reads then gets its answer."""
    allowance = _LINGER_FACTOR * limits.max_bytes
    try:
        async with asyncio.timeout(_LINGER_S):
            while allowance > 0:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected
                allowance -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def _too_large(limits: Limits) -> Refusal:
    return Refusal(
        413,
        "body_too_large",
        f"the body is larger than {limits.max_megabytes:g} MB",
        hint="send fewer or smaller images, or start the server with a larger --max-megabytes",
        headers=(_CLOSE,),
    )
