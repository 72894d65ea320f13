"""Every kind of odd and bad image, and the geometry of each resize policy."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from bench.images import FILTERS, BadImage, Decoding, decode, no_size_warnings

_RANDOM = np.random.default_rng(0)
_PHOTO = Image.fromarray(_RANDOM.integers(0, 256, (30, 40, 3), dtype=np.uint8))

#: EXIF orientation -> what a camera held that way stores.
_STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def encoded(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    memory = io.BytesIO()
    image.save(memory, format_, **options)
    return memory.getvalue()


def own_size(image: Image.Image, channels: int = 3) -> Decoding:
    return Decoding((image.height, image.width), channels)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def giant(width: int, height: int) -> bytes:
    """A PNG that says it is large; 60 bytes and a few."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


# bad


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_truncated_files_are_bad(format_: str, share: float) -> None:
    content = encoded(_PHOTO, format_)
    with pytest.raises(BadImage, match="damaged: "):
        decode(content[: int(len(content) * share)], Decoding((8, 8)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html>404</html>", "HTML or XML"),
        (b"\n  <svg xmlns=''/>", "HTML or XML"),
        (b"just some text", r"not an image that Pillow knows \(it starts with b'just som'\)"),
        (encoded(_PHOTO, "JPEG")[:2], "not an image that Pillow knows"),
    ],
)
def test_files_that_are_no_images(content: bytes, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "picture ñ.jpg"
    file.write_bytes(content)
    for source in (content, file):
        with pytest.raises(BadImage, match=reason):
            decode(source, Decoding((8, 8)))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((4, 4), 0.5, dtype=np.float32), "floating-point pixels"),
        (np.array([[0, 70_000]], dtype=np.int32), r"32-bit values 0\.\.70000"),
        (np.array([[-1, 7]], dtype=np.int32), r"32-bit values -1\.\.7"),
    ],
)
def test_pixels_without_a_known_range_are_bad(values: NDArray[Any], reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        decode(encoded(Image.fromarray(values), "TIFF"), Decoding((4, 4)))


def test_large_headers_are_bad() -> None:
    with no_size_warnings():
        with pytest.raises(BadImage, match="400 megapixels, the limit is 100"):
            decode(giant(20_000, 20_000), Decoding((8, 8)))
        with pytest.raises(BadImage, match="101 megapixels"):
            decode(giant(10_100, 10_000), Decoding((8, 8)))
        with pytest.raises(BadImage, match="damaged"):  # within the limit: its pixels are missing
            decode(giant(400, 400), Decoding((8, 8)))
        with pytest.raises(BadImage, match=r"the limit is 0.001"):
            decode(encoded(_PHOTO), Decoding((8, 8), max_megapixels=0.001))
    assert Image.MAX_IMAGE_PIXELS is not None


def test_large_headers_take_no_memory(tmp_path: Path) -> None:
    (tmp_path / "giant.png").write_bytes(giant(20_000, 20_000))
    script = """
import resource, sys
from pathlib import Path
from bench.images import BadImage, Decoding, decode, no_size_warnings
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, -1))
with no_size_warnings():
    try:
        decode(Path(sys.argv[1]), Decoding((8, 8)))
    except BadImage as error:
        print(error)
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("the limit of a process's memory is Linux's")
    command = [sys.executable, "-c", script, str(tmp_path / "giant.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "400 megapixels, the limit is 100\n"


def test_a_strip_is_too_narrow_to_crop() -> None:
    strip = encoded(Image.new("1", (1, 60_000)))
    with pytest.raises(BadImage, match="1 x 60000 pixels are too narrow to crop to 64 x 64"):
        decode(strip, Decoding((64, 64), resize="crop"))
    for resize in ("squash", "pad"):
        assert decode(strip, Decoding((64, 64), resize=resize)).shape == (64, 64, 3)


def test_damage_anywhere_is_a_bad_image_or_none() -> None:
    chance = random.Random(0)  # no secret
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a photo"
    sources = [
        encoded(_PHOTO, "JPEG", exif=exif),
        encoded(_PHOTO, "PNG", exif=exif),
        encoded(_PHOTO.quantize(8), "PNG", transparency=0),
        *(encoded(_PHOTO, format_) for format_ in ("GIF", "TIFF", "WEBP", "BMP", "DDS", "TGA", "ICO")),
    ]
    with no_size_warnings():
        for content in sources * 80:
            damaged = bytearray(content)
            for _ in range(chance.choice([1, 1, 10])):
                damaged[chance.randrange(min(len(damaged), chance.choice([60, 10**6])))] = chance.randrange(256)
            try:
                assert decode(bytes(damaged[: chance.choice([None, -20])]), Decoding((8, 8))).shape == (8, 8, 3)
            except BadImage as reason:
                assert str(reason)  # noqa: PT017  # either is right


def test_running_out_of_memory_is_no_fault_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageOps, "exif_transpose", refuse)
    with pytest.raises(MemoryError):
        decode(encoded(_PHOTO), Decoding((8, 8)))


# odd


@pytest.mark.parametrize("big_endian", [False, True])
def test_16_bits_are_scaled_not_clipped(big_endian: bool) -> None:
    values = np.array([[0, 128, 257, 32_768, 65_406, 65_535]], dtype=np.uint16)
    image = Image.fromarray(values.astype(">u2")) if big_endian else Image.fromarray(values)
    pixels = decode(encoded(image, "TIFF" if big_endian else "PNG"), own_size(image, 1))
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 128, 254, 255]


def test_transparency_lies_on_white() -> None:
    rgba = Image.fromarray(np.array([[[255, 0, 0, 255], [0, 0, 0, 0], [0, 0, 0, 128]]], dtype=np.uint8), "RGBA")
    assert decode(encoded(rgba), own_size(rgba)).tolist() == [[[255, 0, 0], [255, 255, 255], [127, 127, 127]]]
    grey = Image.fromarray(np.array([[[40, 255], [40, 0]]], dtype=np.uint8), "LA")
    assert decode(encoded(grey), own_size(grey, 1)).tolist() == [[[40], [255]]]
    key = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    assert decode(encoded(key, transparency=(1, 2, 3)), own_size(key)).tolist() == [[[255] * 3, [4, 5, 6]]]
    bilevel = Image.fromarray(np.array([[0, 9]], dtype=np.uint8))
    assert decode(encoded(bilevel, transparency=0), own_size(bilevel, 1)).tolist() == [[[255], [9]]]


@pytest.mark.parametrize(
    ("format_", "options", "first"),
    [
        ("PNG", {}, [10, 20, 30]),
        ("GIF", {}, [10, 20, 30]),
        ("PNG", {"transparency": 0}, [255, 255, 255]),
        ("GIF", {"transparency": 0}, [255, 255, 255]),
        ("PNG", {"transparency": b"\x00\xff"}, [255, 255, 255]),
    ],
)
def test_palettes(format_: str, options: dict[str, Any], first: list[int]) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert decode(encoded(image, format_, **options), own_size(image)).tolist() == [[first, [200, 100, 50]]]


def test_cmyk_jpegs_keep_their_colours() -> None:
    image = Image.new("CMYK", (16, 8), (0, 255, 255, 0))
    image.paste((0, 0, 0, 0), (8, 0, 16, 8))
    pixels = decode(encoded(image, "JPEG", quality=100), own_size(image)).astype(int)
    assert np.abs(pixels[:, :8] - [255, 0, 0]).max() <= 3
    assert np.abs(pixels[:, 8:] - 255).max() <= 3


@pytest.mark.parametrize("orientation", _STORED)
@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_exif_turns_the_picture_upright(orientation: int, format_: str) -> None:
    blocks = _RANDOM.integers(0, 256, (3, 4, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    upright = Image.fromarray(blocks)
    method = _STORED[orientation]
    stored = upright if method is None else upright.transpose(method)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if format_ == "JPEG" else {}
    pixels = decode(encoded(stored, format_, exif=exif, **options), own_size(upright))
    assert np.abs(pixels.astype(int) - blocks).max() <= (4 if format_ == "JPEG" else 0)


@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP"])
def test_an_animation_is_its_first_frame(format_: str) -> None:
    frames = [Image.new("RGB", (6, 5), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if format_ == "WEBP" else {}
    content = encoded(frames[0], format_, save_all=True, append_images=frames[1:], **options)
    assert np.all(decode(content, own_size(frames[0])) == [255, 0, 0])


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("channels", [1, 3])
def test_one_pixel_fills_the_image(resize: Any, channels: int) -> None:
    pixels = decode(encoded(Image.new("RGB", (1, 1), (90, 90, 90))), Decoding((5, 5), channels, resize))
    assert (pixels.shape, pixels.dtype) == ((5, 5, channels), np.uint8)
    assert np.all(pixels == 90)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "YCbCr", "CMYK"])
def test_modes_of_tiffs(mode: str) -> None:
    pixels = decode(encoded(Image.new("RGB", (4, 4), "white").convert(mode), "TIFF"), Decoding((4, 4)))
    assert pixels.shape == (4, 4, 3)
    assert pixels.min() >= 254


# boxes


def test_a_box_is_cut_out_before_the_image_is_resized() -> None:
    content, how = encoded(_PHOTO), Decoding((6, 8))
    expected = np.asarray(_PHOTO.crop((4, 3, 33, 21)).resize((8, 6), Image.Resampling.BILINEAR))
    assert np.array_equal(decode(content, how, box=(4, 3, 33, 21)), expected)
    assert np.array_equal(decode(content, how, box=(0, 0, 40, 30)), decode(content, how))
    assert np.array_equal(decode(content, Decoding((1, 1)), box=(39, 29, 40, 30))[0, 0], np.asarray(_PHOTO)[29, 39])


def test_a_box_is_meant_in_the_upright_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = encoded(_PHOTO.transpose(Image.Transpose.ROTATE_90), exif=exif)
    box = (30, 2, 40, 12)  # beyond the width of what is stored
    assert np.array_equal(decode(stored, Decoding((10, 10)), box=box), np.asarray(_PHOTO)[2:12, 30:40])


@pytest.mark.parametrize(
    "box", [(-1, 0, 5, 5), (0, -1, 5, 5), (0, 0, 41, 5), (0, 0, 5, 31), (5, 5, 5, 9), (5, 9, 9, 5)]
)
def test_a_box_that_is_not_inside_is_bad(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(BadImage, match=r"the box \[.*\] is not inside its 40 x 30 pixels"):
        decode(encoded(_PHOTO), Decoding((4, 4)), box=box)


# geometry


@pytest.mark.parametrize("filter_", FILTERS)
def test_squash_is_pillows_resize(filter_: str) -> None:
    for size in ((8, 8), (13, 57), (64, 64), (30, 40)):
        expected = np.asarray(_PHOTO.resize((size[1], size[0]), FILTERS[filter_]))
        assert np.array_equal(decode(encoded(_PHOTO), Decoding(size, filter=filter_)), expected)


@pytest.mark.parametrize("size", [(8, 8), (13, 21), (29, 39), (13, 57), (64, 64)])
def test_squash_equals_torchs_interpolation_of_uint8(size: tuple[int, int]) -> None:
    pixels = torch.from_numpy(np.array(_PHOTO)).permute(2, 0, 1)[None]
    scaled = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)
    difference = np.abs(decode(encoded(_PHOTO), Decoding(size)).astype(int) - scaled[0].permute(1, 2, 0).numpy())
    assert difference.max() <= 1  # the two round some weights differently
    if size[0] <= _PHOTO.height and size[1] <= _PHOTO.width:
        assert np.mean(difference > 0) < 0.02


@pytest.mark.parametrize("shape", [(20, 60), (60, 20), (33, 50), (50, 50)])
@pytest.mark.parametrize("size", [(16, 16), (10, 24)])
def test_crop_is_the_centre_of_the_covering_image(shape: tuple[int, int], size: tuple[int, int]) -> None:
    image = Image.fromarray(_RANDOM.integers(0, 256, (*shape, 3), dtype=np.uint8))
    scale = max(size[0] / shape[0], size[1] / shape[1])
    scaled = image.resize((round(shape[1] * scale), round(shape[0] * scale)), Image.Resampling.BILINEAR)
    top, left = (scaled.height - size[0]) // 2, (scaled.width - size[1]) // 2
    expected = np.asarray(scaled)[top : top + size[0], left : left + size[1]]
    assert np.array_equal(decode(encoded(image), Decoding(size, resize="crop")), expected)


@pytest.mark.parametrize("shape", [(20, 60), (60, 20), (33, 50), (50, 50), (1, 90)])
@pytest.mark.parametrize("size", [(16, 16), (10, 24)])
def test_pad_shows_the_whole_image_between_black_bars(shape: tuple[int, int], size: tuple[int, int]) -> None:
    image = Image.fromarray(_RANDOM.integers(1, 256, (*shape, 3), dtype=np.uint8))
    scale = min(size[0] / shape[0], size[1] / shape[1])
    inner = image.resize((max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))), Image.Resampling.BILINEAR)
    expected = np.zeros((*size, 3), dtype=np.uint8)
    top, left = -((inner.height - size[0]) // 2), -((inner.width - size[1]) // 2)
    expected[top : top + inner.height, left : left + inner.width] = np.asarray(inner)
    assert np.array_equal(decode(encoded(image), Decoding(size, resize="pad")), expected)


def test_crop_and_pad_are_centred_on_known_images() -> None:
    wide = Image.new("L", (30, 10), 50)
    wide.paste(200, (10, 0, 20, 10))
    assert np.all(decode(encoded(wide), Decoding((10, 10), 1, "crop")) == 200)
    padded = decode(encoded(wide), Decoding((30, 30), 1, "pad"))
    assert np.all(padded[:10] == 0)
    assert np.all(padded[20:] == 0)
    assert np.array_equal(padded[10:20, :, 0], np.asarray(wide))


def test_decoding_in_threads_warns_of_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a photo of something"
    torn = bytearray(encoded(_PHOTO, "JPEG", exif=exif))
    count = torn.index(b"\x01\x0e\x00\x02") + 4
    torn[count : count + 4] = b"\x00\xff\xff\xff"  # Pillow warns of a text longer than the file
    contents = [bytes(torn), encoded(_PHOTO), b"<html>"] * 8

    def one(content: bytes) -> str:
        try:
            return str(decode(content, Decoding((8, 8))).shape)
        except BadImage as error:
            return str(error)[:7]

    with no_size_warnings(), ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, [*contents, giant(11_000, 9_000)]))  # of the last one, too, Pillow would warn
    assert found == ["(8, 8, 3)", "(8, 8, 3)", "not an "] * 8 + ["damaged"]
