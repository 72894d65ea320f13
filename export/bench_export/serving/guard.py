"""Who may ask: no web page of somebody else, and nobody by a name that is not ours."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from bench_export.serving.exchange import ASGIApp, Receive, Scope, Send, header, respond_refusal
from bench_export.serving.limits import Refusal

__all__ = ["Guard"]


class Guard:
    """ASGI middleware that refuses requests with foreign Host or Origin headers.

    A browser sends a page's own name as Host even where that name was made to resolve to this machine (DNS rebinding),
    so only addresses, localhost and this machine's names are taken. A page of another origin may not post here: its
    Origin header differs from Host, and no CORS header ever allows it.
    """

    def __init__(self, app: ASGIApp, *, names: Iterable[str] = ()) -> None:
        self._app = app
        self._names = {"localhost", socket.gethostname().lower(), socket.getfqdn().lower(), *map(str.lower, names)}
        self._known: set[bytes] = set()  # Host headers that have passed before

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except Refusal as refusal:
                await respond_refusal(send, refusal)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        host = header(scope, b"host") or b""
        if host and host not in self._known:
            self._check_host(host.decode("latin-1"))
            if len(self._known) < 64:  # noqa: PLR2004  # nobody can fill the memory
                self._known.add(host)
        origin = header(scope, b"origin")
        if origin is not None and origin.partition(b"://")[2].lower() != host.lower():
            raise Refusal(
                403, "foreign_origin", "requests from other web pages are refused", hint="open the page of this server"
            )
        if origin is None and header(scope, b"sec-fetch-site") == b"cross-site" and scope["method"] != "GET":
            raise Refusal(403, "foreign_origin", "requests from other web pages are refused")

    def _check_host(self, host: str) -> None:
        name = _without_port(host).lower()
        if name in self._names or _is_address(name):
            return
        raise Refusal(
            403,
            "unknown_host",
            f"this server does not answer to the name {name[:100]!r}",
            hint="use its address, or start it with --allow-host NAME",
        )


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
