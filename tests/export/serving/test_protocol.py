"""What a connection may do: many requests in a row, headers of any shape, and silence for a while only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState
from wire import send_raw

from bench_export.serving.protocol import Protocol

HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF = HEALTH[:-2] + b"X: a"
LAST = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def sized(image: bytes, more: bytes = b"") -> bytes:
    return HEAD + more + f"Content-Length: {len(image)}\r\n\r\n".encode() + image


def labels(answer: bytes) -> list[bytes]:
    return [part.partition(b'"')[0] for part in answer.split(b'"images": [{"file": "", "label": "')[1:]]


def test_requests_in_a_row_are_answered_in_order(server: int, colours: dict[str, bytes]) -> None:
    red, green, blue = (colours[name] for name in ("red", "lime", "blue"))
    several = sized(red) + sized(blue, b"Expect: 100-continue\r\n") + sized(red) + HEALTH
    answer = send_raw(server, several + sized(green, b"Connection: close\r\n"), half_close=False)
    assert labels(answer) == [b"red", b"blue", b"red", b"green"]
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 5


def test_a_body_in_chunks_is_whole_and_its_trailers_are_no_headers(server: int, colours: dict[str, bytes]) -> None:
    half = len(colours["blue"]) // 2
    pieces = (colours["blue"][:half], colours["blue"][half:])
    body = b"".join(b"%x;a=b\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    end = b"0\r\nContent-Type: text/html\r\nX: y\r\n\r\n"
    head = HEAD.replace(b"Content-Type: image/png\r\n", b"") + b"Transfer-Encoding: chunked\r\n\r\n"
    assert labels(send_raw(server, head + body + end + LAST, half_close=False)) == [b"blue"]


@pytest.mark.parametrize("more", [b"", b"Expect: 100-continue\r\n"])
def test_who_asks_for_another_protocol_gets_this_one(server: int, colours: dict[str, bytes], more: bytes) -> None:
    wish = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n" + more
    several = sized(colours["red"], wish) + HEALTH.replace(b"\r\n\r\n", b"\r\n" + wish + b"\r\n")
    answer = send_raw(server, several + sized(colours["blue"], b"Connection: close\r\n"), half_close=False)
    assert labels(answer) == [b"red", b"blue"]
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 3


@pytest.mark.parametrize(
    "request_",
    [
        b"HELLO\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n",
        b"GET http://x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        HEAD + b"Host: other\r\nContent-Length: 5\r\n\r\nabcde",
        HEAD + b"Content-Length: +5\r\n\r\nabcde",
        HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nabcde",
        HEAD + b"Content-Length: " + b"0" * 5000 + b"5\r\n\r\nabcde",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nabcde",
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"Content-Length : 5\r\n\r\nabcde",
        HEAD + b"Content-Length: 5\r\n folded: x\r\n\r\nabcde",
        HEAD + b"Content-Length: 5\r\nX: \x00\r\n\r\nabcde",
        HEAD + b"Content-Length: 5\r\nX: a\nY: b\r\n\r\nabcde",
    ],
)
def test_what_is_no_http_is_refused_as_json_after_the_answers_before_it(server: int, request_: bytes) -> None:
    answers = send_raw(server, HEALTH + HEALTH + request_ + HEALTH, half_close=False).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200", b"200", b"400"]
    head, _, body = answers[-1].partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert json.loads(body)["error"]["code"] == "invalid_http"


@pytest.mark.parametrize(
    "request_",
    [
        HEALTH[:-2] + b"X: " + b"a" * 70_000 + b"\r\n\r\n",
        HEALTH[:-2] + b"X: " + b"a" * 1_000_000,
        HEALTH[:-2] + b"X: y\r\n" * 20_000 + b"\r\n",
        b"GET /" + b"a" * 300_000,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n" + b"X: y\r\n" * 200_000,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 1_000_000,
        b"\r\n" * 500_000,
    ],
)
def test_headers_have_a_limit(request_: bytes) -> None:
    answer = asyncio.run(_answer(Protocol, request_))
    assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large")
    assert b'"code": "headers_too_large"' in answer


def test_requests_that_nobody_waits_for_have_a_limit(server: int) -> None:
    answer = send_raw(server, HEALTH * 3000, half_close=False)
    assert 30 <= answer.count(b"HTTP/1.1 200") <= 40
    assert b"HTTP/1.1 429 Too Many Requests" in answer


@pytest.mark.parametrize(
    ("beginning", "more"),
    [
        (b"", b""),
        (b"", b"\r\n"),
        (HALF, b""),
        (HALF, b"a"),
        (HEALTH + HALF, b""),
        (HEALTH + HALF, b"a"),
        (HEALTH[:-2] + b"Content-Length: 50\r\n\r\n", b""),
        (HEALTH[:-2] + b"Content-Length: 50\r\n\r\n", b"a"),
    ],
)
def test_half_a_request_is_waited_for_a_while(beginning: bytes, more: bytes) -> None:
    class Impatient(Protocol):
        patience_s = 0.4

    start = time.monotonic()
    answer = asyncio.run(_answer(Impatient, beginning, more=more))
    assert answer.count(b"HTTP/1.1 ") == answer.count(b"HTTP/1.1 200") == (b"\r\n\r\n" in beginning)
    assert 0.3 < time.monotonic() - start < 2.5


def test_patience_begins_anew_with_every_request() -> None:
    class Impatient(Protocol):
        patience_s = 0.4

    answer = asyncio.run(_answer(Impatient, HALF, more=b"a\r\n\r\n" + HALF, times=8))
    assert answer.count(b"HTTP/1.1 200") == 8


async def _health(scope: Any, receive: Any, send: Any) -> None:
    if scope["method"] == "POST":
        while (await receive()).get("more_body"):
            pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def _answer(protocol: type[Protocol], content: bytes, *, more: bytes = b"", times: int = 100) -> bytes:
    """What a connection of `protocol` answers until it is closed; `more` is sent every 0.1 s."""
    config = uvicorn.Config(_health, timeout_keep_alive=1, log_config=None, lifespan="off")
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: protocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())

    async def go_on() -> None:
        for _ in range(times if more else 0):
            await asyncio.sleep(0.1)
            writer.write(more)

    going_on = asyncio.create_task(go_on())
    writer.write(content)
    answer = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(5):
            while part := await reader.read(65536):
                answer += part
    going_on.cancel()
    writer.close()
    server.close()
    return answer
