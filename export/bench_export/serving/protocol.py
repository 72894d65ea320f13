"""uvicorn's HTTP protocol, with JSON for requests that are no HTTP, and a limit for connections that say nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from bench_export.serving.exchange import ASGIApp, Scope
from bench_export.serving.lane import answer, plain_request
from bench_export.serving.limits import Refusal

__all__ = ["http_protocol"]

#: How long a new connection may take until its first request's headers are complete.
_FIRST_REQUEST_S = 20.0


def http_protocol() -> type[asyncio.Protocol]:
    """A subclass of the protocol that uvicorn would choose: httptools where it is installed, else h11."""
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    return type("Protocol", (_Additions, AutoHTTPProtocol), {})


class _Additions(asyncio.Protocol):
    """What is put before uvicorn's class. Plain predictions take the short way while no other request is under way."""

    # uvicorn's
    app: ASGIApp
    connections: set[Any]
    cycle: Any
    limit_concurrency: int | None
    loop: asyncio.AbstractEventLoop
    tasks: set[asyncio.Task[None]]
    timeout_keep_alive: float
    timeout_keep_alive_handler: Callable[[], None]
    timeout_keep_alive_task: asyncio.TimerHandle | None
    transport: Any
    _unset_keepalive_if_required: Callable[[], None]

    _busy = _spoken = _ending = False
    _later = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.loop.call_later(_FIRST_REQUEST_S, self._close_where_silent)

    def data_received(self, data: bytes) -> None:
        if self._busy:  # the next request already: it waits its turn
            self._later += data
            self.transport.pause_reading()
        elif self._may_take_short_way() and (request := plain_request(data)) is not None:
            self._busy = self._spoken = True
            self._unset_keepalive_if_required()
            task = self.loop.create_task(self._take_short_way(*request))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        else:
            super().data_received(data)

    def shutdown(self) -> None:
        """End when what is under way is answered."""
        self._ending = True
        if not self._busy:
            super().shutdown()  # type: ignore[misc]  # uvicorn's

    def send_400_response(self, msg: str) -> None:
        """What was no HTTP is refused as everything is."""
        refusal = Refusal(400, "invalid_http", msg, hint="speak HTTP/1.1")
        body = refusal.body()
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        self.transport.write(f"{head}\r\nconnection: close\r\n\r\n".encode() + body)
        self.transport.close()

    async def _take_short_way(self, scope: Scope, body: bytes) -> None:
        keep = False
        try:
            keep = await answer(self.app, scope, body, self.transport.write)
        finally:
            self._busy = False
            if self._ending or not keep:
                self.transport.close()
            elif not self.transport.is_closing():
                later, self._later = self._later, b""
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )
                if later:
                    self.transport.resume_reading()
                    self.data_received(later)

    def _may_take_short_way(self) -> bool:
        """Whether h11 has neither a request nor a part of one; httptools does not say, and is fast anyway."""
        connection = getattr(self, "conn", None)
        return (
            connection is not None
            and (self.cycle is None or self.cycle.response_complete)
            and connection.trailing_data == (b"", False)
            and str(connection.their_state) == str(connection.our_state) == "IDLE"
            and (self.limit_concurrency is None or len(self.connections) < self.limit_concurrency)
        )

    def _close_where_silent(self) -> None:
        if self.cycle is None and not self._spoken and not self.transport.is_closing():
            self.transport.close()
