"""What the leaderboard says, in words and cells; terminal, Markdown and page share them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bench.comparison.wording import p_text
from bench.console import duration
from bench.leaderboard.facts import Entry, Standing

__all__ = [
    "HOW_CHOSEN",
    "HOW_TIED",
    "accuracy_text",
    "left_out_text",
    "noted",
    "number_text",
    "remarks",
    "score",
    "score_name",
    "setups",
    "standing_text",
    "time_text",
]

HOW_CHOSEN = (
    "Of several runs of a recipe on one test set, the one with the most seeds or folds stands; of equals the best by the "
    "recipe's objective on the validation split, or, where there is none, the latest. The test set has no say in it."
)
HOW_TIED = (
    "Tied: no difference from the leader is detectable, by McNemar's exact test on the saved predictions; where seeds "
    "vary, over the seeds and over the images; over folds by a corrected paired t-test. p-values are Holm-corrected for "
    "the comparisons with the leader of a dataset, and from 0.05 on it is a tie."
)


def noted(entries: Sequence[Entry]) -> tuple[list[str], list[str]]:
    """(names, notes): each recipe's name without its ending, with the number of the note that says what was changed."""
    notes = list(dict.fromkeys(entry.changes for entry in entries if entry.changes))
    names = [entry.recipe.removesuffix(".toml") for entry in entries]
    marks = [f" [{notes.index(entry.changes) + 1}]" if entry.changes else "" for entry in entries]
    return [name + mark for name, mark in zip(names, marks, strict=True)], notes


def accuracy_text(entry: Entry, *, space: str = "") -> str:
    """99.60% [99.30, 99.77], or over folds 67.20% ± 1.27; `space` goes before the percent sign."""
    mean = f"{100 * entry.accuracy:.2f}{space}%"
    if entry.standard_error is not None:
        return f"{mean} ± {100 * entry.standard_error:.2f}"
    if entry.low is None or entry.high is None:
        return mean
    return f"{mean} [{100 * entry.low:.2f}, {100 * entry.high:.2f}]"


def standing_text(standing: Standing) -> str:
    """leader, tied (p = 0.34), behind (p < 0.0001) or not tested."""
    if standing.p is None:
        return standing.verdict
    p = p_text(standing.p)
    return f"{standing.verdict} (p {p.replace('<', '< ') if p.startswith('<') else f'= {p}'})"


def score_name(entries: Sequence[Entry]) -> str:
    """The second score of a dataset: macro F1 of classes, AUROC of pairs."""
    return "AUROC" if entries[0].pairs else "macro F1"


def score(entry: Entry) -> str:
    """Its value."""
    value = entry.auroc if entry.pairs else entry.macro_f1
    return "" if value is None else f"{value:.3f}"


def time_text(entry: Entry) -> str:
    """How long a run trained, with what is fitted before the first epoch."""
    return duration(entry.train_seconds)


def number_text(number: int) -> str:
    """A count in at most five characters: 162, 47.5k, 1.18M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return str(number)


def remarks(entry: Entry) -> str:
    """What is worth knowing of an entry: how many runs, why this one, and what is missing."""
    repeated = {"run": "", "seeds": f"{entry.num_runs} seeds", "folds": f"{entry.num_runs} folds, ± standard error"}
    found = [
        repeated[entry.kind],
        f"{entry.unfinished} more did not finish" if entry.unfinished else "",
        entry.chosen if entry.chosen != "the only one" else "",
        f"not tested: {entry.fault}" if entry.fault else "",
    ]
    return "; ".join(filter(None, found))


def setups(entries: Iterable[Entry]) -> list[str]:
    """Where and when entries were measured; who shares that is named where not all do."""
    groups: dict[str, list[str]] = {}
    for entry in entries:
        versions = [f"{name} {version}" for name, version in entry.versions.items()]
        groups.setdefault("; ".join(filter(None, [entry.date, entry.hardware, *versions])), []).append(entry.label)
    if len(groups) == 1:
        return [f"Measured {setup}." for setup in groups if setup]
    return [f"Measured {setup}: {', '.join(names)}." for setup, names in groups.items() if setup]


def left_out_text(left_out: Mapping[str, int]) -> str:
    """How many runs are not on the board, and why; "" where all are."""
    if not left_out:
        return ""
    total = sum(left_out.values())
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())
    return f"{total:,} run{'s' if total != 1 else ''} left out: {reasons}."
