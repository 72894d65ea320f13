"""bench serve."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

__all__ = ["serve"]


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=int, help="Port; default: 8000, or a free one where that is in use.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads of the session; default: the file's tuning.")
@click.option("--max-batch", type=click.IntRange(1, 1024), help="Images run together; default: measured at the start.")
@click.option("--max-delay-ms", type=click.FloatRange(0, 1000), default=0.0, show_default=True, help="Wait for more.")
@click.option("--max-megabytes", type=click.FloatRange(0.001, 2000), default=32.0, show_default=True, help="Of a body.")
@click.option("--max-megapixels", type=click.FloatRange(0.001, 1000), default=50.0, show_default=True, help="An image.")
@click.option("--allow-host", multiple=True, metavar="NAME", help="Another name that this server is reached by.")
def serve(
    model: Path,
    *,
    host: str,
    port: int | None,
    max_megabytes: float,
    max_megapixels: float,
    allow_host: tuple[str, ...],
    **options: Any,
) -> None:
    """Serve a model over HTTP: a page for people at /, JSON for programs at /predict; Ctrl-C ends it.

    \b
    bench serve model.onnx
    bench serve model.onnx --port 9000 --max-batch 32
    curl -F file=@photo.jpg http://127.0.0.1:8000/predict
    curl -F first=@a.jpg -F second=@b.jpg http://127.0.0.1:8000/predict
    """
    from bench.console import TerminalProgress
    from bench_export.serving.limits import Limits
    from bench_export.serving.server import Settings
    from bench_export.serving.server import serve as run

    progress = TerminalProgress()
    limits = Limits(max_megabytes=max_megabytes, max_megapixels=max_megapixels)
    settings = Settings(limits=limits, names=allow_host, **options)
    sys.exit(run(model, host=host, port=port, settings=settings, report=click.echo, warn=progress.warn))
