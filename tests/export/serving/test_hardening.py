"""Malformed requests by the thousand: nothing crashes, nothing is a 5xx, and a good request is still answered."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image
from wire import BOUNDARY, encoded, form, get, giant, post, send_raw

GOOD = encoded(Image.effect_noise((40, 30), 60).convert("RGB"), "JPEG")
FORMATS = [
    encoded(Image.effect_noise((40, 30), 60), name) for name in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM")
]
FORM = form(("file", "a.jpg", GOOD), ("file", "b.png", FORMATS[1]))
BOUNDARIES = ["", "x", '"', "é", BOUNDARY[1:], "y" * 5000]
TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def head(method: str = "POST", path: str = "/predict", **headers: str) -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        *(f"{key.replace('_', '-')}: {value}" for key, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def sized(body: bytes, kind: str = "image/jpeg") -> bytes:
    return head(Content_Type=kind, Content_Length=str(len(body)), Connection="close") + body


def damaged(chance: random.Random, content: bytes) -> bytes:
    torn = bytearray(content)
    for _ in range(chance.choice([1, 3, 20])):
        torn[chance.randrange(min(len(torn), chance.choice([40, 10**6])))] = chance.randrange(256)
    return bytes(torn[: chance.choice([len(torn), chance.randrange(len(torn))])])


def malformed(chance: random.Random) -> bytes:
    """One request that is wrong in one of many ways, or by luck right."""
    noise = chance.randbytes(chance.choice([0, 1, 30, 3000]))
    ways = [
        lambda: noise,
        lambda: noise + b"\r\n\r\n",
        lambda: damaged(chance, sized(GOOD)),
        lambda: sized(noise),
        lambda: sized(damaged(chance, chance.choice(FORMATS))),
        lambda: sized(damaged(chance, FORM), TYPE),
        lambda: sized(FORM, f"multipart/form-data; boundary={chance.choice(BOUNDARIES)}"),
        lambda: sized(
            FORM, chance.choice(["", "text/html", "multipart/form-data", "image/", ";;;", "\x01", "a" * 9000])
        ),
        lambda: sized(FORM[: chance.randrange(len(FORM))], TYPE),
        lambda: sized(giant(chance.choice([1, 3000, 60_000, 2**31 - 1]), chance.choice([1, 3000, 60_000, 2**31 - 1]))),
        lambda: head(Content_Length=str(10 ** chance.randrange(25)), Content_Type="image/png", Expect="100-continue"),
        lambda: head(Content_Length=chance.choice(["-1", "x", "1e3", "٣".encode().decode("latin-1"), "5, 5"])) + noise,
        lambda: (
            head(Transfer_Encoding="chunked", Content_Type="image/png")
            + chance.choice([b"zz\r\n", b"5\r\nab", b"FFFFFFFFFFF\r\n"])
            + noise
        ),
        lambda: head(X_Long="a" * chance.choice([100, 70_000, 200_000])),
        lambda: head(**{f"X_{number}": "b" for number in range(chance.choice([50, 2000]))}),
        lambda: head(chance.choice(["GET", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "get", "Ü"])),
        lambda: head(
            "GET",
            chance.choice(
                ["/%00", "/../../etc/passwd", "/" + "a" * 5000, "//", "*", "/predict/", "/%ff%fe", "/card?" + "&" * 999]
            ),
        ),
        lambda: head(
            path=f"/predict?top={chance.choice(['-1', '%00', 'x', '9' * 5000, '=&=', '%'])}", Content_Length="0"
        ),
        lambda: b"GET / HTTP/9.9\r\n\r\n",
        lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        lambda: head("GET", "/", Upgrade="websocket", Connection="Upgrade", Sec_WebSocket_Key="x"),
        lambda: head("GET", Host=chance.choice(["", "evil.example", "[", "a:b:c", "\x7f"])),
        lambda: sized(GOOD)[: chance.randrange(1, 500)],
    ]
    return chance.choice(ways)()


def statuses(answer: bytes) -> list[int]:
    """Those of all responses in an answer."""
    return [int(part[4:7]) for part in answer.split(b"HTTP/")[1:] if part[4:7].isdigit()]


def bombard(port: int, count: int) -> dict[int, int]:
    """How often each status was answered."""
    chance = random.Random(0)
    requests = [malformed(chance) for _ in range(count)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda content: send_raw(port, content, seconds=20), requests))
    found = [status for answer in answers for status in statuses(answer)]
    return {status: found.count(status) for status in sorted(set(found))}


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_malformed_requests_never_break_it(server: int, count: int) -> None:
    found = bombard(server, count)
    assert {400, 403, 404, 405, 413, 415, 422} <= set(found)
    assert max(found) < 500, found
    assert sum(found.values()) > count / 2
    status, answer = post(server, FORMATS[1])
    assert (status, len(answer["images"])) == (200, 1)
    assert get(server, "/health")[1]["ready"]
    assert b"visionbench_queue_length 0" in send_raw(server, head("GET", "/metrics", Connection="close"))
