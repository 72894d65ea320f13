"""What an entry's model costs: from its record, its exported files and the record of `bench latency`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from statistics import fmean
from typing import TYPE_CHECKING, Any

from bench.comparison.model import Costs

if TYPE_CHECKING:
    from bench.comparison.choosing import Recorded
    from bench.record import Run

__all__ = ["costs"]

#: End to end first: that is what a user of the model waits for.
_MEASURES = ("end_to_end", "compute")

_MEGABYTE = 1e6


def costs(group: Sequence[Recorded]) -> Costs:
    """The costs of an entry: training as the mean over its runs, the rest of the first run that has it."""
    recorded = [one.info["metrics"] | _searched(one.info) for one in group]
    exported = next((found for one in group if (found := _exported(one.run))), {})
    if not exported:  # as a search has measured it
        first = recorded[0]
        exported = {"onnx_mb": _number(first, "size_mb"), "p50_ms": _number(first, "latency_ms")}
    return Costs(
        parameters=_first(recorded, "parameters"),
        macs=_first(recorded, "macs"),
        train_seconds=_mean([_with_fit(one) for one in recorded], "train_seconds"),
        images_per_second=_mean(recorded, "images_per_second") or None,
        **exported,
    )


def _with_fit(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The time of training with that of what is computed beforehand: a model in closed form takes nothing else."""
    trained = _number(metrics, "train_seconds")
    fitted = _number(metrics, "fit_seconds") or 0.0
    return {"train_seconds": None if trained is None else trained + fitted}


def _searched(info: Mapping[str, Any]) -> dict[str, Any]:
    found = info.get("costs")
    return dict(found) if isinstance(found, dict) else {}


def _exported(run: Run) -> dict[str, Any]:
    """Size, precision and latencies of the file that `bench latency` recommends, otherwise of the fp32 file."""
    folder = run.folder / "export"
    try:
        latency = json.loads((folder / "latency.json").read_text(encoding="utf-8"))
        one = _candidate(latency)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        latency, one = {}, None
    if one is None:
        size = _size_mb(folder / "model.onnx")
        return {} if size is None else {"onnx_mb": size, "precision": "fp32"}
    # The recorded path is that of the machine that measured: only its name counts.
    size = _size_mb(folder / PureWindowsPath(str(one.get("file"))).name)
    found = {"onnx_mb": _number(one, "size_mb") if size is None else size, "precision": one.get("precision")}
    if latency.get("scenario") == "single":  # others measure a load, not one image
        found |= _percentiles(one)
        found["machine"] = ((latency.get("conditions") or {}).get("machine") or {}).get("cpu")
    return found


def _candidate(latency: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The recommended candidate, otherwise that of full precision; torch is none, as it is no exported file."""
    files = {one["name"]: one for one in latency["candidates"] if str(one.get("file", "")).endswith(".onnx")}
    recommended = (latency.get("recommendation") or {}).get("candidate")
    if recommended in files:
        found: Mapping[str, Any] = files[recommended]
        return found
    return next((one for one in files.values() if one.get("precision") == "fp32"), None)


def _percentiles(candidate: Mapping[str, Any]) -> dict[str, float | None]:
    measures = candidate.get("measures") or {}
    measure: Any = next((measures[name] for name in _MEASURES if name in measures), {})
    levels = measure.get("percentiles") or {}
    return {f"p{level}_ms": _number(levels.get(level) or {}, "value_ms") for level in ("50", "90")}


def _size_mb(path: Path) -> float | None:
    """A file's size with that of the weights beside it, in 10^6 bytes; None where it is gone."""
    try:
        size = path.stat().st_size
    except OSError:
        return None
    weights = path.with_name(f"{path.name}.data")
    return (size + (weights.stat().st_size if weights.is_file() else 0)) / _MEGABYTE


def _number(values: Mapping[str, Any], key: str) -> float | None:
    value = values.get(key)
    return float(value) if isinstance(value, int | float) else None


def _first(recorded: Sequence[Mapping[str, Any]], key: str) -> float | None:
    return next((value for one in recorded if (value := _number(one, key)) is not None), None)


def _mean(recorded: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [value for one in recorded if (value := _number(one, key)) is not None]
    return fmean(values) if values else None
