"""Export, parity gate, serving and latency. Nothing here is reached by name from the core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from bench_export.predictor import Predictor

__all__ = ["load"]


def load(path: Path | str, **options: Any) -> Predictor:
    """Open an exported file to predict with, as in `load("model.onnx").predict(["a.jpg", "b.jpg"])`.

    `options` are those of `bench_export.predictor.load`, which says what is raised.
    """
    from bench_export.predictor import load as open_file

    return open_file(path, **options)
