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

__all__ = ["Quantised", "Quantiser", "quantise"]


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
    """A core model in int8 that loses at most `allowed_loss` points: the first answer of a `Quantiser`."""
    return Quantiser(core, calibration=calibration, accuracy_loss=accuracy_loss, report=report).within(allowed_loss)


class Quantiser:
    """A core model in int8 (QDQ, weights int8 per channel, activations uint8), with more or fewer layers in float.

    `calibration` are batches of the core's inputs from training images; `accuracy_loss` gives the points that a core
    loses on the selection images. Of the calibrations the one that loses least is taken, ties by the noise of the
    outputs. What has been measured is kept: asking again costs only what is new.

    Raises BenchError where there are no images, or where the float model's activations are not finite.
    """

    def __init__(
        self,
        core: ModelProto,
        *,
        calibration: Sequence[Mapping[str, NDArray[np.float32]]],
        accuracy_loss: Callable[[ModelProto], float],
        report: Callable[[int, int], None] | None = None,
    ) -> None:
        self._core = core
        model = prepared(core)
        names = layers(model)
        self.num_layers = len(names)
        self._order: list[str] = []
        if not names:
            return
        wanted = observable(model, names)
        seen = observe(model, calibration, tensors=sorted(set(wanted.values())))
        found = {method: {name: rule(values) for name, values in seen.items()} for method, rule in METHODS.items()}
        ranges = {method: {name: spans[source] for name, source in wanted.items()} for method, spans in found.items()}
        del seen
        self._trials = _Trials(model, ranges, calibration, accuracy_loss, names, report or _nothing)
        measured = {method: self._trials.measure(method) for method in METHODS}
        self._method = min(measured, key=lambda method: measured[method][:2])
        self._results = {0: measured[self._method]}

    def within(self, allowed_loss: float, *, least_float: int = 0) -> Quantised:
        """The model with the fewest layers in float32, `least_float` at least, that loses at most `allowed_loss` points.

        The layers that cause most noise alone are the first to stay in float32. Where not even all of them help, `holds`
        is False.
        """
        total = self.num_layers
        if not total:
            remark = "nothing to quantise: the model has no convolution and no fully connected layer; it stays float32"
            return Quantised(self._core, "", (), [], 0.0, True, 0, remark)
        least = min(least_float, total)

        def holds(count: int) -> bool:
            return count >= least and self._measured(count)[0] <= allowed_loss

        count = 0 if holds(0) else fewest(holds, total)
        taken = total if count is None else count
        kept = tuple(self._order[:taken])
        loss, _, proto = self._measured(taken)
        return Quantised(
            proto,
            self._method,
            kept,
            self._trials.tried,
            loss,
            count is not None,
            total,
            _remark(kept, total, loss, count),
        )

    def _measured(self, count: int) -> tuple[float, float, ModelProto]:
        """The model with so many layers in float32."""
        if count and not self._order:
            trials = self._trials
            order = ranked(
                trials.model,
                trials.ranges[self._method],
                trials.batches,
                names=trials.names,
                report=lambda done, total: trials.step(more=2 * total if done == 1 else 0),
            )
            self._order = [name for name, _ in order]
        if count not in self._results:
            self._results[count] = self._trials.measure(self._method, self._order[:count])
        return self._results[count]


def _remark(kept: Sequence[str], total: int, loss: float, count: int | None) -> str:
    if count is None:
        return f"even with all {total} layers in float32 it loses {loss:.2f} points; int8 is not the reason"
    if not kept:
        return f"all {total} layers are int8"
    if len(kept) == total:
        return f"all {total} layers had to stay in float32: nothing is left of int8"
    return f"{len(kept)} of {total} layers stay in float32: {', '.join(kept)}"


def _nothing(_done: int, _total: int) -> None:
    """Report to nobody."""
