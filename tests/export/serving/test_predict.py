"""POST /predict: what is answered, and how a bad request is refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from wire import BOUNDARY, encoded, exchange, form, get, giant, post, post_form, send_raw


def test_a_raw_body_is_one_image(server: int, colours: dict[str, bytes]) -> None:
    for name, label in (("red", "red"), ("lime", "green"), ("blue", "blue")):
        status, answer = post(server, colours[name])
        assert status == 200
        (image,) = answer["images"]
        assert image["label"] == label
        assert image["probabilities"][0] == {
            "label": label,
            "index": image["index"],
            "probability": pytest.approx(image["probabilities"][0]["probability"]),
        }
        values = [row["probability"] for row in image["probabilities"]]
        assert values == sorted(values, reverse=True)
        assert sum(values) == pytest.approx(1, abs=1e-4)
        assert {row["label"] for row in image["probabilities"]} == {"red", "green", "blue"}
    assert answer["model"]["name"] == "colours.onnx"
    assert answer["model"]["precision"] == "fp32"
    assert answer["timing_ms"]["total"] >= answer["timing_ms"]["compute"] > 0


@pytest.mark.parametrize("kind", ["image/jpeg", "application/octet-stream", None, "IMAGE/PNG; charset=x"])
def test_the_pixels_decide_not_the_image_type(server: int, colours: dict[str, bytes], kind: str | None) -> None:
    status, answer = post(server, colours["red"], kind)
    assert (status, answer["images"][0]["label"]) == (200, "red")


def test_a_form_takes_several_files_in_order(server: int, colours: dict[str, bytes]) -> None:
    parts = [("file", f"{name} ñ.png", colours[name]) for name in ("blue", "red", "lime", "red")]
    status, answer = post_form(server, *parts)
    assert status == 200
    assert [image["label"] for image in answer["images"]] == ["blue", "red", "green", "red"]
    assert [image["file"] for image in answer["images"]] == [name for _, name, _ in parts]


def test_top_shortens_the_list(server: int, colours: dict[str, bytes]) -> None:
    status, answer = post(server, colours["red"], query="?top=1")
    assert (status, len(answer["images"][0]["probabilities"])) == (200, 1)
    for wrong in ("0", "-1", "x", "%D9%A3", "1.5", "%00"):
        status, answer = post(server, colours["red"], query=f"?top={wrong}")
        assert (status, answer["error"]["code"]) == (400, "bad_query")
    assert len(post(server, colours["red"], query="?top=99999999999999999999")[1]["images"][0]["probabilities"]) == 3


def test_pairs(pair_server: int, colours: dict[str, bytes]) -> None:
    status, answer = post_form(pair_server, ("first", "a.png", colours["red"]), ("second", "b.png", colours["red"]))
    assert status == 200
    (pair,) = answer["pairs"]
    assert (pair["decision"], pair["index"], pair["threshold"]) == ("same", 1, 0.5)
    assert (pair["first"], pair["second"]) == ("a.png", "b.png")
    status, answer = post_form(pair_server, ("second", "b.png", colours["blue"]), ("first", "a.png", colours["red"]))
    assert (status, answer["pairs"][0]["decision"]) == (200, "different")
    assert answer["pairs"][0]["score"] < 0.5


@pytest.mark.parametrize(
    "fields", [("first",), ("second",), ("file", "file"), ("first", "first"), ("first", "second", "first"), ("a", "b")]
)
def test_a_pair_needs_both_sides(pair_server: int, colours: dict[str, bytes], fields: tuple[str, ...]) -> None:
    status, answer = post_form(pair_server, *((field, "x.png", colours["red"]) for field in fields))
    assert (status, answer["error"]["code"]) == (422, "wrong_fields")
    assert "first=@" in answer["error"]["hint"]


def test_a_raw_body_is_no_pair(pair_server: int, colours: dict[str, bytes]) -> None:
    assert post(pair_server, colours["red"])[0] == 422


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 422, "the body is empty"),
        (b"just some text", 415, r"it starts with b'just som'"),
        (b"<!DOCTYPE html><html>404</html>", 415, "HTML or XML"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "not an image of a known format"),
        (b"RIFF\0\0\0\0WAVEfmt ", 415, "not an image of a known format"),
        (b"\xff\xd8\xff\xe0 no more", 422, "file: "),
        (encoded(Image.new("RGB", (40, 30)))[:60], 422, "damaged"),
        (encoded(Image.fromarray(np.full((4, 4), 0.5, dtype=np.float32)), "TIFF"), 422, "floating-point pixels"),
        (encoded(Image.fromarray(np.array([[0, 70_000]], dtype=np.int32)), "TIFF"), 422, "32-bit values"),
    ],
)
def test_bad_images_are_refused_with_the_reason(server: int, body: bytes, status: int, reason: str) -> None:
    found, answer = post(server, body)
    assert found == status
    assert reason in answer["error"]["reason"]
    assert set(answer["error"]) == {"code", "reason", "hint"}


def test_too_many_pixels_are_refused_before_they_are_decoded(server: int) -> None:
    found, answer = post(server, giant(20_000, 20_000))
    assert found == 422
    assert "400 megapixels, the limit is 4" in answer["error"]["reason"]


def test_all_bad_images_of_a_form_are_named(server: int, colours: dict[str, bytes]) -> None:
    torn = colours["red"][:60]
    status, answer = post_form(
        server, ("file", "good.png", colours["red"]), ("file", "torn.png", torn), ("file", "cut.png", torn)
    )
    assert status == 422
    assert "torn.png: damaged" in answer["error"]["reason"]
    assert "cut.png: damaged" in answer["error"]["reason"]
    assert "good.png" not in answer["error"]["reason"]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/json", "application/x-www-form-urlencoded", "x", "multipart/mixed; boundary=x"]
)
def test_other_types_are_415(server: int, colours: dict[str, bytes], kind: str) -> None:
    status, answer = post(server, colours["red"], kind)
    assert (status, answer["error"]["code"]) == (415, "unsupported_media_type")
    assert "curl" in answer["error"]["hint"]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", f"multipart/form-data; boundary={BOUNDARY}", 400),
        (b"nonsense", f"multipart/form-data; boundary={BOUNDARY}", 400),
        (b"nonsense", "multipart/form-data", 400),
        (b"nonsense", f"multipart/form-data; boundary={'x' * 1000}", 400),
        (form(("file", "a.png", b"x"))[:-8], f"multipart/form-data; boundary={BOUNDARY}", 400),
        (
            f"--{BOUNDARY}\r\nnonsense\r\n\r\nx\r\n--{BOUNDARY}--".encode(),
            f"multipart/form-data; boundary={BOUNDARY}",
            400,
        ),
        (f"--{BOUNDARY}\r\nA: b\r\n\r\nx\r\n--{BOUNDARY}--".encode(), f"multipart/form-data; boundary={BOUNDARY}", 400),
        (f"--{BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={BOUNDARY}", 422),
        (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--{BOUNDARY}--'.encode(),
            f"multipart/form-data; boundary={BOUNDARY}",
            422,
        ),
        (form(("picture", "a.png", b"x")), f"multipart/form-data; boundary={BOUNDARY}", 422),
        (form(("file", "a.png", b"")), f"multipart/form-data; boundary={BOUNDARY}", 422),
        (form(*[("file", "a.png", b"x")] * 65), f"multipart/form-data; boundary={BOUNDARY}", 413),
    ],
)
def test_broken_forms_are_refused(server: int, body: bytes, kind: str, status: int) -> None:
    found, answer = post(server, body, kind)
    assert (found, set(answer["error"])) == (status, {"code", "reason", "hint"})


def test_a_form_of_countless_parts_is_refused(server: int) -> None:
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="x"\r\n\r\n\r\n'.encode()
    status, answer = post(server, part * 5000 + f"--{BOUNDARY}--".encode(), f"multipart/form-data; boundary={BOUNDARY}")
    assert (status, answer["error"]["code"]) == (413, "too_many_parts")


@pytest.mark.parametrize("size", [1_000_001, 3_000_000])
def test_large_bodies_are_413(server: int, size: int) -> None:
    status, headers, _body = exchange(server, "POST", "/predict", bytes(size), {"Content-Type": "image/png"})
    assert (status, headers["connection"]) == (413, "close")


def test_large_bodies_without_a_length_are_413_while_they_come(server: int) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    answer = send_raw(server, head + chunk * 40, half_close=False)  # and never an end
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"body_too_large" in answer


def test_a_length_that_lies_is_no_way_round_the_limit(server: int) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    too_long = send_raw(server, head + b"Content-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n", half_close=False)
    assert too_long.startswith(b"HTTP/1.1 413")
    answer = send_raw(server, head + b"Content-Length: 10\r\n\r\n" + bytes(2_000_000))
    assert not answer or answer.startswith((b"HTTP/1.1 415", b"HTTP/1.1 422"))
    both = head + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + b"10000\r\n" + bytes(0x10000) + b"\r\n"
    assert send_raw(server, both + b"0\r\n\r\n")[:10] in {b"HTTP/1.1 4", b""}
    assert get(server, "/health")[0] == 200
