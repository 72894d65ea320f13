"""Static int8: calibrate in three ways, keep the best, and leave sensitive layers in float until the limit holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench_export.conversion.calibration import METHODS, observe
from bench_export.conversion.qdq import layers, observable, prepared, quantised
from bench_export.conversion.sensitivity import fewest, noise, outputs_of, ranked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto

__all__ = ["Quantised", "quantise"]


@dataclass(frozen=True, slots=True)
class Quantised:
    """An int8 model and how it came about.

    `calibration` is the method that was taken ("" where nothing was quantised), `kept_float` the layers left in
    float32, `loss` the points that it loses on the selection images, `holds` whether that is within the limit.
    `tried` has one entry a candidate, in order: calibration, kept_float, loss, noise. `remark` is for people.
    """

    proto: ModelProto
    calibration: str
    kept_float: tuple[str, ...]
    tried: list[dict[str, Any]]
    loss: float
    holds: bool
    num_layers: int
    remark: str


@dataclass(slots=True)
class _Trials:
    """Candidates of one model: built, measured and written down."""

    model: ModelProto
    ranges: Mapping[str, Mapping[str, tuple[float, float]]]
    batches: Sequence[Mapping[str, NDArray[np.float32]]]
    accuracy_loss: Callable[[ModelProto], float]
    names: tuple[str, ...]
    report: Callable[[int, int], None]
    tried: list[dict[str, Any]] = field(default_factory=list)
    done: int = 0
    total: int = len(METHODS)
    exact: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        self.exact = outputs_of(self.model, self.batches)

    def step(self, *, more: int = 0) -> None:
        """Another step is done; `more` have turned out to be needed."""
        self.total += more
        self.done += 1
        self.report(min(self.done, self.total), self.total)

    def measure(self, method: str, kept: Sequence[str] = ()) -> tuple[float, float, ModelProto]:
        """(loss in points, noise of the outputs, model); a loss that is no number counts as infinite."""
        names = [name for name in self.names if name not in set(kept)]
        proto = quantised(self.model, self.ranges[method], names) if names else self.model
        loss = float(self.accuracy_loss(proto))
        loss = loss if math.isfinite(loss) else math.inf
        error = noise(self.exact, outputs_of(proto, self.batches))
        self.tried.append({"calibration": method, "kept_float": list(kept), "loss": loss, "noise": error})
        self.step()
        return loss, error, proto


def quantise(
    core: ModelProto,
    *,
    calibration: Sequence[Mapping[str, NDArray[np.float32]]],
    accuracy_loss: Callable[[ModelProto], float],
    allowed_loss: float,
    report: Callable[[int, int], None] | None = None,
) -> Quantised:
    """A core model in int8 (QDQ, weights int8 per channel, activations uint8) that loses at most `allowed_loss` points.

    `calibration` are batches of the core's inputs from training images; `accuracy_loss` gives the points that a core
    loses on the selection images. Of the calibrations the one that loses least is taken, ties by the noise of the
    outputs. Where it loses too much, the layers that cause most noise alone stay in float32, as few as needed.
    Where not even that helps, `holds` is False and the best candidate is returned.

    Raises BenchError where there are no images, or where the float model's activations are not finite.
    """
    model = prepared(core)
    names = layers(model)
    if not names:
        remark = "nothing to quantise: the model has no convolution and no fully connected layer; it stays float32"
        return Quantised(core, "", (), [], 0.0, True, 0, remark)
    wanted = observable(model, names)
    seen = observe(model, calibration, tensors=sorted(set(wanted.values())))
    found = {method: {name: rule(values) for name, values in seen.items()} for method, rule in METHODS.items()}
    ranges = {method: {name: spans[source] for name, source in wanted.items()} for method, spans in found.items()}
    del seen
    trials = _Trials(model, ranges, calibration, accuracy_loss, names, report or _nothing)
    measured = {method: trials.measure(method) for method in METHODS}
    best = min(measured, key=lambda method: measured[method][:2])
    loss, _, proto = measured[best]
    if loss <= allowed_loss:
        return Quantised(proto, best, (), trials.tried, loss, True, len(names), f"all {len(names)} layers are int8")
    return _with_layers_in_float(trials, best, allowed_loss)


def _nothing(_done: int, _total: int) -> None:
    """Report to nobody."""


def _with_layers_in_float(trials: _Trials, method: str, allowed_loss: float) -> Quantised:
    """Leave out the most sensitive layers until the loss is within the limit."""
    order = ranked(
        trials.model,
        trials.ranges[method],
        trials.batches,
        names=trials.names,
        report=lambda done, total: trials.step(more=2 * total if done == 1 else 0),
    )
    results: dict[int, tuple[float, float, ModelProto]] = {}

    def holds(count: int) -> bool:
        results[count] = trials.measure(method, [name for name, _ in order[:count]])
        return results[count][0] <= allowed_loss

    total = len(order)
    count = fewest(holds, total)
    taken = total if count is None else count
    kept = tuple(name for name, _ in order[:taken])
    loss, _, proto = results[taken]
    if count is None:
        remark = f"even with all {total} layers in float32 it loses {loss:.2f} points; int8 is not the reason"
    elif taken == total:
        remark = f"all {total} layers had to stay in float32: nothing is left of int8"
    else:
        remark = f"{taken} of {total} layers stay in float32: {', '.join(kept)}"
    return Quantised(proto, method, kept, trials.tried, loss, count is not None, total, remark)
