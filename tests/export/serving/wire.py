"""HTTP by hand: requests that no client library would send, and forms."""

from __future__ import annotations

import http.client
import io
import json
import socket
import struct
import zlib
from typing import Any

from PIL import Image

__all__ = ["encoded", "exchange", "form", "get", "giant", "post", "post_form", "send_raw"]

BOUNDARY = "a-boundary"


def exchange(
    port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def get(port: int, path: str, **headers: str) -> tuple[int, Any]:
    """Status and JSON."""
    status, _headers, body = exchange(port, "GET", path, None, headers)
    return status, json.loads(body)


def post(port: int, body: bytes, kind: str | None = "image/png", query: str = "", **headers: str) -> tuple[int, Any]:
    """Status and JSON of a body as it is."""
    kinds = {} if kind is None else {"Content-Type": kind}
    status, _headers, content = exchange(port, "POST", f"/predict{query}", body, kinds | headers)
    return status, json.loads(content)


def post_form(port: int, *parts: tuple[str, str, bytes]) -> tuple[int, Any]:
    """Status and JSON of a form of (field, file name, content)."""
    return post(port, form(*parts), f"multipart/form-data; boundary={BOUNDARY}")


def form(*parts: tuple[str, str, bytes]) -> bytes:
    """A multipart body."""
    pieces = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for field, name, content in parts
    ]
    return b"".join(pieces) + f"--{BOUNDARY}--\r\n".encode()


def send_raw(port: int, content: bytes, *, seconds: float = 10.0, half_close: bool = True) -> bytes:
    """All that a server answers to these bytes until it closes, or falls silent."""
    with socket.create_connection(("127.0.0.1", port), seconds) as connection:
        answer = b""
        try:
            connection.sendall(content)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                answer += part
        except OSError:  # closed in the middle, or silent
            pass
        return answer


def encoded(image: Image.Image, format_: str = "PNG") -> bytes:
    """An image as a file."""
    memory = io.BytesIO()
    image.save(memory, format_)
    return memory.getvalue()


def giant(width: int, height: int) -> bytes:
    """A PNG that says it is large; 60 bytes and a few."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
