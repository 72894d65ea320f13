"""The body of a request -> the encoded images in it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from bench_export.serving.limits import Refusal

__all__ = ["FORMATS", "Upload", "check_format", "uploads_of"]

#: The formats that are decoded, by what their files begin with. Pillow knows more, some of which run other programs.
FORMATS = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "WebP": (b"RIFF",),
    "BMP": (b"BM",),
    "TIFF": (b"II*\0", b"MM\0*"),
    "JPEG 2000": (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
    "AVIF": (b"\0\0\0\x18ftypavi", b"\0\0\0\x1cftypavi", b"\0\0\0 ftypavi", b"\0\0\0$ftypavi", b"\0\0\0,ftypavi"),
    "PPM": (b"P5", b"P6"),
}
_BEGINNINGS = tuple(start for starts in FORMATS.values() for start in starts)

_RAW_TYPES = {"", "application/octet-stream", "binary/octet-stream"}
_CURL_HINT = "curl -F file=@photo.jpg URL, or curl -H 'Content-Type: image/jpeg' --data-binary @photo.jpg URL"
_MAX_NAME = 200
_MAX_TEXT_FIELDS = 16

logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # whose warnings repeat what the client is told


@dataclass(slots=True)
class Upload:
    """One encoded image: the form's field it came in, its file's name ("" where there is none), its bytes."""

    field: str
    name: str
    content: bytes

    def title(self) -> str:
        """What to call it in a message."""
        return self.name or self.field


def uploads_of(content_type: bytes | None, body: bytes, *, max_images: int) -> list[Upload]:
    """The images of a body: a form's files, or the body itself.

    Raises Refusal: 415 for another type, 400 for a broken form, 413 for too many images, 422 for none.
    """
    name, boundary = _kind(content_type or b"")
    if name.startswith("image/") or name in _RAW_TYPES:
        if not body:
            raise Refusal(422, "no_image", "the body is empty", hint=_CURL_HINT)
        return [Upload("file", "", body)]
    if name != "multipart/form-data":
        raise Refusal(
            415,
            "unsupported_media_type",
            f"a body of the type {name[:_MAX_NAME]!r} is not understood: multipart/form-data, image/* or"
            " application/octet-stream is",
            hint=_CURL_HINT,
        )
    uploads = _parse(boundary, body, max_images)
    if not uploads:
        raise Refusal(422, "no_image", "the form holds no file", hint=_CURL_HINT)
    return uploads


def _kind(content_type: bytes) -> tuple[str, bytes]:
    """The media type and the boundary; known ones are kept, as clients repeat them."""
    return _known_kind(content_type) if len(content_type) <= _MAX_NAME else _known_kind.__wrapped__(content_type)


@lru_cache(256)
def _known_kind(content_type: bytes) -> tuple[str, bytes]:
    from python_multipart.multipart import parse_options_header

    kind, options = parse_options_header(content_type.decode("latin-1"))
    return kind.decode("latin-1"), options.get(b"boundary", b"")


def check_format(upload: Upload) -> None:
    """Raise Refusal where an upload is empty (422) or does not begin like an image of a format that is taken (415)."""
    content = upload.content
    if not content:
        raise Refusal(422, "bad_image", f"{upload.title()}: empty file")
    if content.startswith(_BEGINNINGS) and not (content.startswith(b"RIFF") and content[8:12] != b"WEBP"):
        return
    what = "HTML or XML (a failed download?)" if content[:64].lstrip()[:1] == b"<" else f"{content[:8]!r}"
    raise Refusal(
        415,
        "not_an_image",
        f"{upload.title()}: not an image of a known format (it starts with {what})",
        hint=f"{', '.join(list(FORMATS)[:-1])} and {list(FORMATS)[-1]} are",
    )


@dataclass(slots=True)
class _Form:
    """What the parser has read so far."""

    body: bytes
    max_images: int
    uploads: list[Upload] = field(default_factory=list)
    headers: dict[bytes, bytes] = field(default_factory=dict)
    key: bytes = b""
    value: bytes = b""
    start: int = -1
    end: int = -1
    parts: int = 0
    complete: bool = False

    def begin(self) -> None:
        self.parts += 1
        if self.parts > self.max_images + _MAX_TEXT_FIELDS:
            raise Refusal(413, "too_many_parts", f"more than {self.max_images + _MAX_TEXT_FIELDS} parts in one form")
        self.headers, self.key, self.value, self.start, self.end = {}, b"", b"", -1, -1

    def add_key(self, data: bytes, start: int, end: int) -> None:
        self.key += data[start:end]

    def add_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def end_header(self) -> None:
        self.headers[self.key.lower()] = self.value
        self.key = self.value = b""

    def add_data(self, _data: bytes, start: int, end: int) -> None:
        """Parts are not copied piece by piece: all pieces of one lie behind each other in the body."""
        self.start = start if self.start < 0 else self.start
        self.end = end

    def end_part(self) -> None:
        from python_multipart.multipart import parse_options_header

        disposition, options = parse_options_header(self.headers.get(b"content-disposition", b"").decode("latin-1"))
        if disposition != b"form-data" or b"name" not in options:
            raise Refusal(400, "broken_form", "a part of the form has no name", hint=_CURL_HINT)
        if b"filename" not in options:
            return  # a text field
        if len(self.uploads) >= self.max_images:
            reason = f"more than {self.max_images} images in one request"
            raise Refusal(413, "too_many_images", reason, hint="send them in several requests")
        content = self.body[self.start : self.end] if self.start >= 0 else b""
        name = options[b"filename"].decode("utf-8", "replace")[:_MAX_NAME]
        self.uploads.append(Upload(options[b"name"].decode("utf-8", "replace")[:_MAX_NAME], name, content))

    def finish(self) -> None:
        self.complete = True


def _parse(boundary: bytes, body: bytes, max_images: int) -> list[Upload]:
    """The files of a form, in order."""
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser

    form = _Form(body, max_images)
    callbacks: Any = {
        "on_part_begin": form.begin,
        "on_header_field": form.add_key,
        "on_header_value": form.add_value,
        "on_header_end": form.end_header,
        "on_part_data": form.add_data,
        "on_part_end": form.end_part,
        "on_end": form.finish,
    }
    if not boundary:
        raise Refusal(400, "broken_form", "the form's type names no boundary", hint=_CURL_HINT)
    try:
        MultipartParser(boundary, callbacks).write(body)
    except FormParserError as cause:
        raise Refusal(400, "broken_form", f"the form is broken: {cause}", hint=_CURL_HINT) from None
    if not form.complete:
        raise Refusal(400, "broken_form", "the form ends before its last boundary", hint=_CURL_HINT)
    return form.uploads
