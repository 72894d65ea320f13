"""What the figures come to: which candidate to ship, and whether they may be published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench_export.latency.assemble import MIN_COUNTS, MIN_DURATION_S

if TYPE_CHECKING:
    from bench_export.latency.candidates import Candidate
    from bench_export.latency.samples import Samples
    from bench_export.latency.settings import Settings

__all__ = ["recommendation", "why_not_publishable"]


def recommendation(
    candidates: Sequence[Candidate], described: Sequence[Mapping[str, Any]], compared: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The fastest candidate that was accepted by its gate, end to end; fp32 where less precision gains nothing."""
    accepted = [one for one in candidates if _accepted(one)]
    if not accepted:
        return {"candidate": None, "reason": "no candidate was accepted by its gate"}
    by_rate = any(one.get("metric") == "qps" for one in compared)
    speeds = {one["name"]: _speed(one, by_rate=by_rate) for one in described}
    fastest = max(accepted, key=lambda one: speeds[one.name])
    if len(accepted) == 1:
        return {"candidate": fastest.name, "reason": "the only one that was measured and accepted"}
    full = [one for one in accepted if one.precision == "fp32" and one.name != fastest.name]
    rival = max(full, key=lambda one: speeds[one.name], default=None)
    if fastest.precision != "fp32" and rival is not None:
        verdicts = _verdicts(compared, rival.name, fastest.name)
        if not all(verdict.startswith(f"{fastest.name} ") for verdict in verdicts.values()):
            return {
                "candidate": rival.name,
                "reason": f"{fastest.name} gains nothing certain on it: {_shown(verdicts)}",
            }
    reason = f"the fastest that was accepted{_beside(fastest, accepted, compared)}"
    slow = [one.name for one in accepted if one.precision != "fp32" and one.name != fastest.name]
    if fastest.precision == "fp32" and slow:
        reason += f"; less precision does not pay here: {', '.join(slow)} is not faster"
    if len({one.card.run for one in accepted if one.card}) > 1:
        reason += "; they are models of several runs, and this says nothing of which is the more accurate one"
    return {"candidate": fastest.name, "reason": reason}


def why_not_publishable(
    described: Sequence[Mapping[str, Any]], samples: Samples, settings: Settings, observed: Mapping[str, Any]
) -> list[str]:
    """Every reason why the figures are no MLPerf result; none: they are."""
    reasons = ["--quick"] if settings.quick else []
    measured_s = settings.num_blocks * settings.length_s
    if measured_s < MIN_DURATION_S:
        reasons.append(f"{measured_s:g} s for each candidate and measure; MLPerf asks for {MIN_DURATION_S:g} s")
    if not samples.real:
        reasons.append(f"the samples are no real ones ({samples.source})")
    least = MIN_COUNTS[settings.scenario]
    for one in described:
        for what, measure in one["measures"].items():
            name = f"{one['name']}, {what.replace('_', '-')}"
            offline = settings.scenario == "offline"
            count = measure["samples"] if offline else measure["queries"]
            if count < least:
                reasons.append(f"{name}: {count:,} {'samples' if offline else 'queries'}; MLPerf asks for {least:,}")
            if not measure["loadgen"]["valid"]:
                reasons.append(f"{name}: LoadGen calls it invalid ({measure['loadgen']['early_stopping']})")
    reasons += list(observed["during"].get("disturbances", []))
    return reasons


def _accepted(one: Candidate) -> bool:
    gate = one.card.gate if one.card else None
    return ".rejected" not in one.path.name and (gate or {}).get("passed", True) is not False


def _speed(described: Mapping[str, Any], *, by_rate: bool) -> float:
    """Larger is faster: by the measure that a user of the model feels. A rate that does not hold is none."""
    measure = described["measures"]["end_to_end"]
    if by_rate:
        return float(measure["target_qps"]) if measure["loadgen"]["valid"] else 0.0
    p50 = measure["percentiles"]["50"].get("value_ms")
    return float(1 / p50 if p50 else measure["samples_per_second"] / 1e3)


def _verdicts(compared: Sequence[Mapping[str, Any]], a: str, b: str) -> dict[str, str]:
    """The verdict on two candidates, by measure."""
    return {one["measure"]: str(one["verdict"]) for one in compared if {one["a"], one["b"]} == {a, b}}


def _shown(verdicts: Mapping[str, str]) -> str:
    return ", ".join(f"{what.replace('_', '-')}: {verdict}" for what, verdict in verdicts.items())


def _beside(fastest: Candidate, accepted: Sequence[Candidate], compared: Sequence[Mapping[str, Any]]) -> str:
    """Whom it could not be told apart from."""
    same = [
        other.name
        for other in accepted
        if other.name != fastest.name
        and _verdicts(compared, fastest.name, other.name)["end_to_end"].startswith("no difference")
    ]
    return f" (end to end no difference to {', '.join(same)} is detectable)" if same else ""
