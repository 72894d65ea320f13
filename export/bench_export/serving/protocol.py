"""uvicorn's HTTP protocol on httptools, with JSON for requests that are no HTTP, and limits that httptools does not set."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bench_export.serving.limits import Refusal

__all__ = ["Protocol"]

_LARGEST_HEAD = 2**16  # bytes
_MOST_WAITING = 32  # requests sent before an answer to those before; the parser cannot be stopped between two
_MOST_DIGITS = 20  # of a length; Python refuses to read a number of thousands of digits
_UPGRADE_HEADERS = {b"connection", b"upgrade", b"http2-settings"}
_HINT = "speak HTTP/1.1"


class Protocol(HttpToolsProtocol):
    """One connection. What is no HTTP is refused as everything is, after the answers to the requests before it."""

    #: How long a connection may take, while no answer is owed, until the next request's headers are complete.
    patience_s = 20.0

    _patience: asyncio.TimerHandle | None = None
    _refusal: Refusal | None = None
    _upgrading = False
    _pending_bytes = 0  # that have made nothing complete yet: parts of headers, of trailers, of a chunk's extensions

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._joined = _JoinedWrites(transport, self.loop)
        self.transport = cast("asyncio.Transport", self._joined)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        super().connection_lost(exc)
        self._stop_watching()

    def eof_received(self) -> None:
        """Send what is ready, as asyncio closes the connection then."""
        self._joined.flush()

    def data_received(self, data: bytes) -> None:
        """Parse, and refuse what is no HTTP or too large."""
        if self._refusal is not None:  # nobody knows any more where a request begins
            return
        self._unset_keepalive_if_required()
        self._pending_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, Refusal) else _no_http("invalid HTTP request"))
        else:
            if self._pending_bytes > _LARGEST_HEAD:
                self._refuse(_too_large())
        self._watch()

    def on_headers_complete(self) -> None:
        """Start on a request. What is raised here goes through httptools to `data_received`."""
        self._pending_bytes = 0
        self.headers[:] = [(name, value.rstrip()) for name, value in self.headers]
        _check(self.parser.get_http_version(), self.url, self.headers)
        if len(self.pipeline) >= _MOST_WAITING:
            raise Refusal(429, "too_many_requests", "too many requests at once", hint="read answers in between")
        self._upgrading = self.parser.should_upgrade()
        if not self._upgrading:
            super().on_headers_complete()
            self.headers = []  # for trailers, which are no headers of the request

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._pending_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        self._pending_bytes = 0
        if not self._upgrading:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on to the next request, or to the refusal that was put off."""
        last = not self.pipeline
        super().on_response_complete()
        if last and self._refusal is not None:
            self._send_refusal(self._refusal)

    def _feed(self, data: bytes) -> None:
        """Parse. Who wants another protocol gets HTTP/1.1: httptools would stop before the body, so it starts anew."""
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if self.parser.get_method() == b"CONNECT":
                    self._refuse(_no_http("this is no proxy"))
                    return
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
            else:
                return

    def _head_without_upgrade(self) -> bytes:
        lines = [b"%b %b HTTP/1.1" % (self.parser.get_method(), self.url)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] not in _UPGRADE_HEADERS]
        return b"\r\n".join([*lines, b"", b""])

    def _refuse(self, refusal: Refusal) -> None:
        self._refusal = refusal
        if not self._answering():
            self._send_refusal(refusal)
        elif self.cycle.more_body:  # the rest of which will never come
            if self.pipeline:
                self.pipeline.popleft()
            elif self.cycle.response_started:
                self.transport.close()
            else:
                self._send_refusal(refusal)

    def _send_refusal(self, refusal: Refusal) -> None:
        if self.transport.is_closing():
            return
        body = refusal.body()
        head = f"HTTP/1.1 {refusal.status} {_PHRASES[refusal.status]}\r\ncontent-type: application/json"
        self.transport.write(f"{head}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        self.transport.close()

    def _answering(self) -> bool:
        return bool(self.cycle) and not self.cycle.response_complete  # there is no cycle before the first request

    def _watch(self) -> None:
        """Be patient for a while with a connection that is owed no answer."""
        if self._answering():
            self._stop_watching()
        elif self._patience is None:
            self._patience = self.loop.call_later(self.patience_s, self.timeout_keep_alive_handler)

    def _stop_watching(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


class _JoinedWrites:
    """A transport that sends in one go what is written in one step: a response's head and body wake the client once."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        if self._parts:
            self._transport.write(b"".join(self._parts))
            self._parts.clear()


_PHRASES = {400: "Bad Request", 429: "Too Many Requests", 431: "Request Header Fields Too Large"}


def _check(version: str, url: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Raise Refusal for what httptools lets pass, and HTTP/1.1 or we do not."""
    if version not in {"1.0", "1.1"}:
        raise _no_http(f"HTTP/{version} is not spoken here")
    if len(url) + sum(len(name) + len(value) + 4 for name, value in headers) > _LARGEST_HEAD:
        raise _too_large()
    hosts = codings = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"content-length" and len(value) > _MOST_DIGITS:
            raise _no_http("a length of that many digits is not read")
        elif name == b"transfer-encoding":
            codings += 1
            if codings > 1 or value.lower() != b"chunked":
                raise _no_http("no transfer coding but chunked is understood")
    if hosts > 1 or (not hosts and version == "1.1"):
        raise _no_http("a request has one Host header")


def _no_http(reason: str) -> Refusal:
    return Refusal(400, "invalid_http", reason, hint=_HINT)


def _too_large() -> Refusal:
    return Refusal(431, "headers_too_large", f"the headers are larger than {_LARGEST_HEAD // 1024} KiB")
