"""A model's card in words, for people: (what, words) a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench_export.card import Card, Preprocessing
    from bench_export.prediction.file_facts import FileFacts

__all__ = ["card_lines", "file_lines", "missing_lines"]

_PRECISIONS = {
    "fp32": "fp32",
    "fp16": "fp16 (weights and computation in half precision)",
    "int8": "int8 (8-bit weights and activations)",
}
_RESIZES = {"squash": "resized to", "crop": "resized and cropped at the centre to", "pad": "resized and padded to"}

#: Metrics that are worth a line, in this order; shares are shown in percent.
_METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auroc": "AUROC",
    "eer": "equal error rate",
    "tar_at_far_0.01": "TAR at FAR 1e-2",
    "tar_at_far_0.001": "TAR at FAR 1e-3",
    "log_loss": "log loss",
    "ece": "calibration error",
}
_SPLITS = {"test": "test", "val": "validation"}
_LEAST = ("visionbench", "python", "torch", "onnx", "onnxruntime", "onnxruntime-gpu")


def card_lines(card: Card) -> Iterator[tuple[str, str]]:
    """What it answers, how images reach it, how good it is, how that was proven, and where it comes from."""
    yield "answers", _answers(card)
    yield "preprocessing", _preprocessing(card.preprocessing)
    yield "precision", _PRECISIONS[card.precision]
    yield from _metrics(card.metrics)
    yield "gate", str((card.gate or {}).get("summary", "not judged"))
    if card.quantisation:
        yield "quantisation", _quantisation(card.quantisation)
    yield "tuning", _values(card.tuning) if card.tuning else "none (bench latency --tune finds it)"
    yield from _origin(card)


def file_lines(facts: FileFacts) -> Iterator[tuple[str, str]]:
    """Inputs, outputs and format."""
    for what, values in (("input", facts.inputs), ("output", facts.outputs)):
        for name, kind, shape in values:
            yield what, f"{name}: {kind} {', '.join('?' if side is None else str(side) for side in shape)}"
    opsets = ", ".join(f"{name} {version}" for name, version in facts.opsets.items())
    beside = f", weights in {', '.join(facts.weights_beside)}" if facts.weights_beside else ""
    yield "file", f"{_size(facts.size_mb)}, opset {opsets}, IR {facts.ir_version}{beside}"
    yield "made by", facts.producer or "unknown"


def missing_lines() -> Iterator[tuple[str, str]]:
    """What a file of another program does not say."""
    yield "classes", "not in the file; bench predict takes --labels"
    yield "preprocessing", "not in the file; bench predict takes --preprocess"
    yield "everything else", "no metrics, no gate, no dataset, no run: not exported by bench export"


def _answers(card: Card) -> str:
    if card.task == "verification":
        threshold = "no threshold" if card.threshold is None else f"a score of {card.threshold:.4f} on"
        return f"whether two images show the same: same from {threshold}"
    return f"{len(card.classes)} classes: {', '.join(card.classes)}"


def _preprocessing(how: Preprocessing) -> str:
    height, width = how.size
    pixels = "RGB" if how.channels == 3 else "grey"  # noqa: PLR2004
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (how.mean, how.std))
    order = "" if height == width else "width x height, "
    where = "all of it in the file" if how.in_graph else "left to the caller (bench predict does it)"
    return (
        f"{pixels}, {_RESIZES[how.resize]} {width} x {height} pixels ({order}{how.filter}), divided by 255, minus {mean}, "
        f"over {std}; {where}; images up to {how.max_megapixels:g} megapixels"
    )


def _metrics(metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    """A line a metric, with 95 % intervals where they are known."""
    for prefix, split in _SPLITS.items():
        for key, name in _METRICS.items():
            if f"{prefix}_{key}" in metrics:
                yield split, f"{name} {_with_interval(metrics, f'{prefix}_{key}', percent='accuracy' in key)}"


def _with_interval(metrics: Mapping[str, float], key: str, *, percent: bool) -> str:
    form = ".2%" if percent else ".4f"
    low, high = metrics.get(f"{key}_low"), metrics.get(f"{key}_high")
    interval = "" if low is None or high is None else f" [{low:{form}}, {high:{form}}]"
    return f"{metrics[key]:{form}}{interval}"


def _quantisation(how: Mapping[str, Any]) -> str:
    kept = how.get("kept_float") or ()
    calibration = how.get("calibration", "unknown")
    images = f" on {how['calibration_images']:,} training images" if "calibration_images" in how else ""
    layers = f"; kept in float: {', '.join(kept)}" if kept else "; no layer kept in float"
    return f"calibrated by {calibration}{images}{layers}"


def _origin(card: Card) -> Iterator[tuple[str, str]]:
    data = card.dataset
    yield "dataset", f"{data.get('name', 'unknown')}, fingerprint {_short(data.get('fingerprint'))}{_counts(data)}"
    yield "recipe", f"{card.experiment}, digest {_short(card.recipe_digest)} (--recipe prints it)"
    yield "run", f"{card.run or 'unknown'}, seed {card.seed}, objective {card.objective or 'unknown'}"
    if commit := card.git.get("commit"):
        yield "git", f"{_short(commit)}{' with changes' if card.git.get('dirty') else ''}"
    plugins = [f"{one.get('name')} ({one.get('distribution')} {one.get('version')})" for one in card.plugins]
    if plugins:
        yield "plugins", ", ".join(plugins)
    versions = [f"{name} {version}" for name, version in card.versions.items() if name in _LEAST]
    yield "versions", ", ".join(versions) or "unknown"
    reason = card.exporter.get("fallback_reason")
    how = f"{card.exporter.get('name', 'unknown')}, opset {card.exporter.get('opset', 'unknown')}"
    yield "exporter", how + (f" (the newer one failed: {reason})" if reason else "")
    yield "created", _time(card.created)


def _counts(data: Mapping[str, Any]) -> str:
    """The images of each split, from counts by split and class."""
    counts = data.get("counts")
    if not isinstance(counts, dict):
        return ""
    sums = {split: sum(values.values()) for split, values in counts.items() if isinstance(values, dict)}
    return "".join(f", {number:,} {split}" for split, number in sums.items())


def _values(values: Mapping[str, Any]) -> str:
    """Those that are one value each; what was tried is in --json."""
    plain = {name: value for name, value in values.items() if value is not None and not isinstance(value, list | dict)}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in plain.items())


def _size(megabytes: float) -> str:
    return f"{megabytes:,.2f} MB" if megabytes >= 1 else f"{megabytes * 1000:,.1f} kB"


def _short(digest: Any) -> str:
    return str(digest)[:12] if digest else "unknown"


def _time(text: str) -> str:
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return text or "unknown"
