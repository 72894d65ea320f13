"""uvicorn's HTTP protocol, with JSON for requests that are no HTTP, and a limit for connections that say nothing."""

from __future__ import annotations

import asyncio
from typing import Any

from bench_export.serving.limits import Refusal

__all__ = ["http_protocol"]

#: How long a new connection may take until its first request's headers are complete.
_FIRST_REQUEST_S = 20.0


def http_protocol() -> type[asyncio.Protocol]:
    """A subclass of the protocol that uvicorn would choose: httptools where it is installed, else h11."""
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    class Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # chosen by uvicorn at run time
        """See the module."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.loop.call_later(_FIRST_REQUEST_S, self._close_where_silent)

        def send_400_response(self, msg: str) -> None:
            refusal = Refusal(400, "invalid_http", msg, hint="speak HTTP/1.1")
            body = refusal.body()
            head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
            self.transport.write(f"{head}\r\nconnection: close\r\n\r\n".encode() + body)
            self.transport.close()

        def _close_where_silent(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

    return Protocol
