"""Whether a rerun gave the same: to the bit where nothing that matters has changed, otherwise by test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from bench.reproduction.evidence import Comparison, Paired, collect, compare
from bench.statistics import holm

if TYPE_CHECKING:
    from bench.reproduction.rerun import Rerun

__all__ = ["Outcome", "Reproduction", "judge"]

#: "identical" to the bit; "indistinguishable" by test; "different"; "undecided" where nothing could be tested.
Outcome: TypeAlias = Literal["identical", "indistinguishable", "different", "undecided"]

_LEVEL = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Reproduction:
    """One rerun with its verdict: `sentence` says it, `exact` whether the same bits were to be expected."""

    rerun: Rerun
    comparison: Comparison
    exact: bool
    outcome: Outcome
    sentence: str

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        prepared = self.rerun.prepared
        return {
            "run": prepared.run.name,
            "experiment": prepared.info["experiment"],
            "seed": prepared.info["seed"],
            "rerun": self.rerun.run.name,
            "folder": str(self.rerun.run.folder),
            "outcome": self.outcome,
            "verdict": self.sentence,
            "same_bits_expected": self.exact,
            "changes": [asdict(change) for change in prepared.changes],
            "comparison": asdict(self.comparison),
        }


def judge(reruns: Sequence[Rerun]) -> list[Reproduction]:
    """The verdict on each. Several that are judged by test share an error rate of 5 % (Holm)."""
    compared = [compare(one.prepared.evidence, collect(one.run)) for one in reruns]
    exact = [_expects_same_bits(one) for one in reruns]
    by_test = [
        index
        for index, (one, is_exact) in enumerate(zip(compared, exact, strict=True))
        if one.tested is not None and not is_exact and not one.identical
    ]
    p_values = [paired.p_value for index in by_test if (paired := compared[index].tested) is not None]
    adjusted = dict(zip(by_test, holm(p_values), strict=True))
    found = []
    for index, (rerun, comparison, is_exact) in enumerate(zip(reruns, compared, exact, strict=True)):
        outcome, sentence = _verdict(rerun, comparison, adjusted.get(index), exact=is_exact)
        found.append(Reproduction(rerun, comparison, is_exact, outcome, sentence))
    return found


def _expects_same_bits(rerun: Rerun) -> bool:
    """On the CPU, or where torch was asked to be deterministic, and nothing that matters is another one."""
    prepared = rerun.prepared
    repeatable = prepared.plan.device == "cpu" or prepared.recipe.compute.deterministic
    return repeatable and not rerun.other_data and not any(change.matters for change in prepared.changes)


def _verdict(rerun: Rerun, found: Comparison, p_value: float | None, *, exact: bool) -> tuple[Outcome, str]:
    if rerun.failure:
        return _failed_again(rerun, found)
    if found.identical:
        return "identical", f"reproduced bit for bit{_extent(rerun, found)}"
    if exact and (found.epochs or found.paired or found.weights is not None):
        return "different", f"NOT reproduced: {found.difference()}; nothing that matters has changed in between"
    tested = found.tested
    if tested is None or p_value is None:
        status = rerun.prepared.info["status"]
        return "undecided", f"undecided: {found.difference()}, and the {status} run has no predictions to test by"
    return _by_test(tested, p_value)


def _failed_again(rerun: Rerun, found: Comparison) -> tuple[Outcome, str]:
    if found.departs:
        return "different", f"NOT reproduced: it fails as it did, but {found.departs}"
    return "identical", f"reproduced: it fails as it did: {rerun.failure}"


def _by_test(tested: Paired, p_value: float) -> tuple[Outcome, str]:
    interval = _interval(tested)
    if p_value < _LEVEL:
        return "different", f"NOT reproduced: the accuracy differs by {interval}, p = {p_value:.2g} (McNemar)"
    return "indistinguishable", f"reproduced: no difference detectable, the interval of the difference is {interval}"


def _extent(rerun: Rerun, found: Comparison) -> str:
    """How far, where the record did not come to its end or is not whole."""
    evidence = rerun.prepared.evidence
    if not evidence.ended:
        return f", as far as the record goes ({found.epochs} epoch{'s' if found.epochs != 1 else ''})"
    return ", in what could be compared" if found.lacking else ""


def _interval(tested: Paired) -> str:
    low, high = (100 * bound for bound in tested.interval)
    return f"[{low:+.2f}, {high:+.2f}] percentage points on {tested.samples:,} {tested.split} samples"
