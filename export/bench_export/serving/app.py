"""The service as an ASGI application: FastAPI with /predict beside it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from bench.images import no_size_warnings
from bench_export.prediction.showing import plain_card
from bench_export.predictor import Predictor
from bench_export.serving.batching import Batcher
from bench_export.serving.exchange import Receive, Scope, Send
from bench_export.serving.guard import Guard
from bench_export.serving.limits import Limits, Refusal
from bench_export.serving.metrics import CONTENT_TYPE, Metrics
from bench_export.serving.page import Page
from bench_export.serving.predicting import PredictEndpoint

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["build"]

_PATHS = ("/", "/card", "/health", "/metrics")
_HINT = "GET / is the page; POST /predict; GET /health, /card, /metrics"


def build(predictor: Predictor, batcher: Batcher, *, limits: Limits, names: Iterable[str] = ()) -> Guard:
    """The whole application; `names` are those that Host headers may carry beside this machine's own."""
    from fastapi import FastAPI
    from starlette.routing import Route

    @asynccontextmanager
    async def running(_app: FastAPI) -> AsyncIterator[None]:
        with no_size_warnings():
            batcher.start()
            yield
            await batcher.stop()

    app = FastAPI(lifespan=running, openapi_url=None, redirect_slashes=False)
    name = predictor.session.path.name
    endpoint = PredictEndpoint(predictor.card, name, batcher, limits, batcher.metrics)
    app.router.routes.append(Route("/predict", endpoint, methods=["POST"]))
    _add_pages(app, predictor, batcher, limits)
    _add_errors(app, batcher.metrics)

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        # Past FastAPI's layers, which take as long as all the rest of a prediction's handling.
        lean = scope["type"] == "http" and scope["path"] == "/predict" and scope["method"] == "POST"
        await (endpoint if lean else app)(scope, receive, send)

    return Guard(dispatch, names=names)


def _add_pages(app: FastAPI, predictor: Predictor, batcher: Batcher, limits: Limits) -> None:
    """Everything that is read with GET; starlette answers HEAD with it too."""
    card, page, metrics = predictor.card, Page(), batcher.metrics
    info = {
        "model": predictor.session.path.name,
        "run": card.run,
        "precision": card.precision,
        "task": card.task,
    }
    described = json.dumps(_described(predictor, batcher, limits), ensure_ascii=False).encode()

    async def show_page(_request: Request) -> Response:
        metrics.count_request("/", 200)
        return _response(page.html, "text/html; charset=utf-8", headers=page.headers)

    async def show_card(_request: Request) -> Response:
        metrics.count_request("/card", 200)
        return _response(described, "application/json")

    async def show_health(_request: Request) -> Response:
        status = 200 if batcher.ready else 503
        metrics.count_request("/health", status)
        return _response(json.dumps({"ready": batcher.ready, **info}).encode(), "application/json", status=status)

    async def show_metrics(_request: Request) -> Response:
        metrics.count_request("/metrics", 200)
        return _response(metrics.text(waiting=batcher.waiting, model=info).encode(), CONTENT_TYPE.decode())

    for path, show in zip(_PATHS, (show_page, show_card, show_health, show_metrics), strict=True):
        app.add_route(path, show, methods=["GET"])


def _add_errors(app: FastAPI, metrics: Metrics) -> None:
    """Errors are JSON too."""
    from starlette.exceptions import HTTPException

    async def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101  # it is registered for nothing else
        known = request.url.path in (*_PATHS, "/predict")
        reason = f"{request.method[:20]} {request.url.path[:100]}: {error.detail}"
        metrics.count_request(request.url.path if known else "other", error.status_code)
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
        return _error(Refusal(error.status_code, code, reason, hint=_HINT), headers=dict(error.headers or {}))

    async def fail(request: Request, _: Exception) -> Response:
        known = request.url.path in (*_PATHS, "/predict")
        metrics.count_request(request.url.path if known else "other", 500)
        return _error(Refusal(500, "failed", "the server has failed on this request", hint="see the server's output"))

    app.add_exception_handler(HTTPException, refuse)
    app.add_exception_handler(Exception, fail)


def _error(refusal: Refusal, headers: dict[str, str] | None = None) -> Response:
    return _response(refusal.body(), "application/json", status=refusal.status, headers=headers)


def _response(body: bytes, kind: str, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    from fastapi import Response

    safe = {
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "cross-origin-resource-policy": "same-origin",
    }
    return Response(body, status, headers=safe | (headers or {}), media_type=kind)


def _described(predictor: Predictor, batcher: Batcher, limits: Limits) -> dict[str, Any]:
    """The card without what only `bench verify` reads, and what is known of the server that runs it."""
    session = predictor.session
    server = {
        "file": session.path.name,
        "megabytes": round(session.path.stat().st_size / 1e6, 3),
        "providers": list(session.providers_used),
        "threads": session.threads,
        "max_batch": batcher.max_batch,
        "max_delay_ms": batcher.max_delay_ms,
        "max_megabytes": limits.max_megabytes,
        "max_megapixels": predictor.card.preprocessing.max_megapixels,
        "max_images": limits.max_images,
    }
    return {**plain_card(predictor.card), "server": server}
