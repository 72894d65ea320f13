"""Verdicts in words and numbers: nothing is called better inside the noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.comparison.model import Comparison, Entry, LeftOut, TestSet, Verdict

__all__ = [
    "best_text",
    "difference_text",
    "family_text",
    "grouped",
    "method_texts",
    "p_text",
    "runs_text",
    "set_text",
    "value_text",
    "value_texts",
    "verdict_text",
]

_LEAST_P = 1e-4

#: Of more runs with one reason only the first ones are named.
_MOST_NAMED = 3


def verdict_text(verdict: Verdict) -> str:
    """1 better than 2, or 1 and 2: no difference detectable."""
    if verdict.differs:
        return f"{verdict.first} better than {verdict.second}"
    return f"{verdict.first} and {verdict.second}: no difference detectable"


def difference_text(verdict: Verdict) -> str:
    """+0.56 [-0.92, +2.10], in points."""
    return f"{100 * verdict.difference:+.2f} [{100 * verdict.low:+.2f}, {100 * verdict.high:+.2f}]"


def p_text(p: float) -> str:
    """A p-value for people."""
    return f"<{_LEAST_P:.4f}" if p < _LEAST_P else f"{p:.4f}" if p < 0.1 else f"{p:.2f}"  # noqa: PLR2004


def runs_text(entry: Entry) -> str:
    """x3: how many runs an entry is the mean of."""
    return entry.name if entry.kind == "run" else f"{entry.name} x{len(entry.runs)}"


def set_text(test_set: TestSet) -> str:
    """gtsrb, 3,000 test images."""
    if test_set.samples is None:
        return f"{test_set.dataset}, without predictions"
    return f"{test_set.dataset}, {test_set.samples:,} {'pairs' if test_set.task == 'verification' else 'images'}"


def best_text(test_set: TestSet, comparison: Comparison) -> str:
    """Which is best, and which cannot be told from it."""
    labels = {entry.number: f"{entry.number} {entry.label}" for entry in comparison.entries}
    tested = {entry.number for entry in comparison.entries if entry.tested} & set(test_set.entries)
    if test_set.best is None:
        return "no entry has predictions: nothing can be tested"
    best = labels[test_set.best]
    if len(tested) == 1:
        return f"{best} stands alone: nothing to compare it with"
    others = len(tested) - 1
    if not test_set.tied:
        return f"best: {best}, better than {'the other one' if others == 1 else f'all {others} others'}"
    if len(test_set.tied) == others:
        whom = "the other one" if others == 1 else "any other"
        return f"most accurate: {best}, but no difference to {whom} is detectable"
    named = ", ".join(labels[n] for n in test_set.tied[:_MOST_NAMED])
    more = len(test_set.tied) - _MOST_NAMED
    return f"most accurate: {best}; no difference to {named}{f' and {more} more' if more > 0 else ''} is detectable"


def family_text(comparison: Comparison) -> str:
    """What p-values are corrected for."""
    count = comparison.num_pairs
    if count < 2:  # noqa: PLR2004
        return "one pair: nothing to correct for" if count else "no pairs"
    return f"p is corrected for all {count:,} pairs (Holm)"


def method_texts(comparison: Comparison) -> list[str]:
    """How entries of the kinds at hand are tested."""
    kinds = {entry.kind for entry in comparison.entries if entry.tested}
    found = []
    if "run" in kinds:
        found.append("Two runs: exact McNemar on the same images; interval of the difference by Tango.")
    if "seeds" in kinds:
        found.append(
            "Seeds: the difference must exceed the spread over seeds (t, paired where the seeds are the same, otherwise "
            "Welch) and the chance of the images (sign flips); the larger p and the wider interval count."
        )
    if {"run", "seeds"} <= kinds:
        found.append("A run against seeds: it is lent their spread (Crawford and Howell).")
    if "folds" in kinds:
        found.append("Folds: t paired by fold, corrected for the training images that folds share (Nadeau and Bengio).")
    return found


def grouped(left_out: Sequence[LeftOut]) -> list[tuple[str, str, str, bool]]:
    """(runs, experiment, reason, whether shown): many of one reason as one."""
    found: dict[tuple[str, str, bool], list[str]] = {}
    for one in left_out:
        found.setdefault((one.experiment, one.reason, one.shown), []).append(one.name)
    return [
        (", ".join(names) if len(names) <= _MOST_NAMED else f"{len(names):,} runs", experiment, reason, shown)
        for (experiment, reason, shown), names in found.items()
    ]


def value_texts(values: Sequence[Any]) -> list[str]:
    """The values of one key; with all their digits where shorter ones would make two of them look the same."""
    short, exact = ([value_text(one, exact=exact) for one in values] for exact in (False, True))
    return short if len(set(short)) == len(set(exact)) else exact


def value_text(value: Any, *, exact: bool = False) -> str:
    """A recipe's value for people; a dash where a key is not set, or does not exist."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.15g}" if exact else f"{value:.4g}"
    if isinstance(value, list):
        return f"[{', '.join(value_text(one, exact=exact) for one in value)}]"
    return str(value) if value != "" else '""'
