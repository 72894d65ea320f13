"""POST /predict: the body's images -> their answers. Speaks ASGI itself, as every microsecond here is a client's."""

from __future__ import annotations

import asyncio
import logging
import time
from urllib.parse import parse_qs

from bench_export.card import Card
from bench_export.serving.answers import AnswerWriter
from bench_export.serving.batching import Answer, Batcher
from bench_export.serving.exchange import (
    Disconnected,
    Receive,
    Scope,
    Send,
    header,
    read_body,
    respond,
    respond_refusal,
)
from bench_export.serving.limits import Limits, Refusal
from bench_export.serving.metrics import Metrics
from bench_export.serving.uploads import Upload, check_format, uploads_of

__all__ = ["PredictEndpoint"]

_log = logging.getLogger("bench.serve")

_PAIR_HINT = "curl -F first=@a.jpg -F second=@b.jpg URL"
_PARSE_ASIDE = 2**20  # bytes; a larger form is parsed in a thread, so that others are not kept waiting


class PredictEndpoint:
    """The ASGI endpoint."""

    def __init__(self, card: Card, name: str, batcher: Batcher, limits: Limits, metrics: Metrics) -> None:
        self._card, self._batcher, self._limits, self._metrics = card, batcher, limits, metrics
        self._writer = AnswerWriter(card, name)
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        start = time.perf_counter()
        self._under_way += 1
        status = 200
        try:
            await respond(send, 200, b"application/json", await self._answer(scope, receive, start))
        except Refusal as refusal:
            status = refusal.status
            await respond_refusal(send, refusal)
        except Disconnected:
            return
        except Exception:  # noqa: BLE001  # a bug, or a broken model; the client is told, and the log has it
            status = 500
            _log.exception("the model has failed")
            await respond_refusal(send, Refusal(500, "failed", "the model has failed on this request"))
        finally:
            self._under_way -= 1
        self._metrics.count_request("/predict", status)
        if status == 200:  # noqa: PLR2004  # OK
            self._metrics.latency_s.add(time.perf_counter() - start)

    async def _answer(self, scope: Scope, receive: Receive, start: float) -> bytes:
        if self._under_way > self._limits.max_waiting:
            raise _busy()
        top = _top(scope["query_string"], len(self._card.classes))
        body = await read_body(scope, receive, self._limits)
        samples = self._samples(await self._uploads(header(scope, b"content-type"), body))
        if self._batcher.waiting + len(samples) > max(self._limits.max_waiting, len(samples)):
            raise _busy()
        answers = await self._batcher.answers([tuple(file.content for file in files) for files in samples])
        _refuse_bad(samples, answers)
        return self._writer.body(samples, answers, top=top, total_s=time.perf_counter() - start)

    async def _uploads(self, content_type: bytes | None, body: bytes) -> list[Upload]:
        if len(body) > _PARSE_ASIDE:
            return await asyncio.to_thread(uploads_of, content_type, body, max_images=self._limits.max_images)
        return uploads_of(content_type, body, max_images=self._limits.max_images)

    def _samples(self, uploads: list[Upload]) -> list[tuple[Upload, ...]]:
        """One tuple an image or pair. Raises Refusal where the fields are not those that the task needs."""
        samples = self._pairs(uploads) if self._card.task == "verification" else self._singles(uploads)
        for upload in uploads:
            check_format(upload)
        return samples

    def _singles(self, uploads: list[Upload]) -> list[tuple[Upload, ...]]:
        unknown = sorted({upload.field for upload in uploads if upload.field != "file"})
        if unknown:
            reason = f"images come in the field 'file', not in {', '.join(map(repr, unknown))}"
            raise Refusal(422, "wrong_fields", reason, hint="curl -F file=@photo.jpg URL")
        return [(upload,) for upload in uploads]

    def _pairs(self, uploads: list[Upload]) -> list[tuple[Upload, ...]]:
        sides = [[upload for upload in uploads if upload.field == name] for name in ("first", "second")]
        first, second = map(len, sides)
        if not first or first != second or first + second != len(uploads):
            reason = f"this model compares pairs, and the form holds {first} images as 'first', {second} as 'second'"
            raise Refusal(422, "wrong_fields", reason, hint=_PAIR_HINT)
        return list(zip(*sides, strict=True))


def _refuse_bad(samples: list[tuple[Upload, ...]], answers: list[Answer]) -> None:
    """Raise Refusal where an image is bad; all of them are named."""
    reasons = [
        f"{' and '.join(file.title() for file in files)}: {answer.bad}"
        for files, answer in zip(samples, answers, strict=True)
        if answer.bad is not None
    ]
    if reasons:
        raise Refusal(422, "bad_image", "; ".join(reasons), hint="open it with an image viewer and save it again")


def _top(query: bytes, num_classes: int) -> int:
    """How many classes are asked for: ?top=5; all without it."""
    if not query:
        return num_classes
    values = parse_qs(query.decode("latin-1")).get("top", [str(num_classes)])
    if not values[-1].isascii() or not values[-1].isdigit() or int(values[-1][:9]) < 1:
        raise Refusal(400, "bad_query", f"top={values[-1][:20]!r} is not a number of classes", hint="?top=5")
    return min(int(values[-1][:9]), num_classes)


def _busy() -> Refusal:
    return Refusal(
        503,
        "busy",
        "too many images are waiting",
        hint="send them again in a moment",
        headers=((b"retry-after", b"1"), (b"connection", b"close")),
    )
