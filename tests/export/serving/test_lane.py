"""The short way takes plain requests only, and answers them as the long way does."""

from __future__ import annotations

import json
import socket

import pytest
from wire import send_raw

from bench_export.serving.lane import plain_request

HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"


def test_a_plain_request_is_taken_apart() -> None:
    request = plain_request(HEAD + b"Connection: Keep-Alive\r\nContent-Length: 5 \r\n\r\nabcde")
    assert request is not None
    scope, body = request
    assert body == b"abcde"
    assert (scope["method"], scope["path"], scope["query_string"]) == ("POST", "/predict", b"")
    assert (b"content-length", b"5") in scope["headers"]
    assert (b"content-type", b"image/png") in scope["headers"]


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        HEAD,
        HEAD + b"\r\n",
        HEAD + b"Content-Length: 4\r\n\r\nabcde",
        HEAD + b"Content-Length: 6\r\n\r\nabcde",
        HEAD + b"Content-Length: +5\r\n\r\nabcde",
        HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nabcde",
        HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
        HEAD + b"Content-Length: 5\r\nHost: other\r\n\r\nabcde",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nabcde",
        HEAD + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\nabcde",
        HEAD + b"Content-Length: 5\r\nConnection: close\r\n\r\nabcde",
        HEAD + b"Content-Length: 5\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nabcde",
        HEAD + b"Content-Length : 5\r\n\r\nabcde",
        HEAD + b"Content-Length: 5\r\n folded: x\r\n\r\nabcde",
        HEAD + b"Content-Length: 5\r\nX: \x00\r\n\r\nabcde",
        HEAD + b"Content-Length: 5\r\nX: a\nY: b\r\n\r\nabcde",
        HEAD + b"Content-Length: 5\r\nX: " + b"a" * 9000 + b"\r\n\r\nabcde",
        HEAD.replace(b"Host: localhost\r\n", b"") + b"Content-Length: 5\r\n\r\nabcde",
        HEAD.replace(b"POST", b"PUT") + b"Content-Length: 5\r\n\r\nabcde",
        HEAD.replace(b"/predict", b"/predict?top=1") + b"Content-Length: 5\r\n\r\nabcde",
        HEAD.replace(b"1.1", b"1.0") + b"Content-Length: 5\r\n\r\nabcde",
    ],
)
def test_whatever_is_unusual_is_left_alone(request_: bytes) -> None:
    assert plain_request(request_) is None


def test_requests_in_a_row_are_answered_in_order_whatever_way_they_take(server: int, colours: dict[str, bytes]) -> None:
    def plain(name: str, more: bytes = b"") -> bytes:
        return HEAD + more + f"Content-Length: {len(colours[name])}\r\n\r\n".encode() + colours[name]

    unusual = plain("blue", b"Expect: 100-continue\r\n")
    last = plain("lime", b"Connection: close\r\n")
    several = plain("red") + unusual + plain("red") + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" + last
    answer = send_raw(server, several, half_close=False)
    labels = [part.partition(b'"')[0] for part in answer.split(b'"images": [{"file": "", "label": "')[1:]]
    assert labels == [b"red", b"blue", b"red", b"green"]
    with socket.create_connection(("127.0.0.1", server), 10) as connection:
        for name, label in (("red", "red"), ("lime", "green"), ("blue", "blue")):
            connection.sendall(plain(name))
            found = connection.recv(65536)
            assert found.startswith(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
            assert json.loads(found.partition(b"\r\n\r\n")[2])["images"][0]["label"] == label
            connection.sendall(plain(name) + plain("red"))  # the second one while the first is under way
            found = b""
            while found.count(b"timing_ms") < 2:
                found += connection.recv(65536)
            assert found.count(b'"images": [{"file": "", "label": "red"') >= 1
        connection.sendall(plain("red").replace(b"localhost", b"evil.example"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 403 Forbidden")
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"403" in connection.recv(65536)
