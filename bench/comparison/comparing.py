"""Compare runs: names -> runs -> entries with their evidence -> test sets -> verdicts."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any

from bench.comparison.choosing import Recorded, choose
from bench.comparison.differences import differences, read_keys
from bench.comparison.entries import entry_of, kind_of, labelled
from bench.comparison.letters import MOST_ENTRIES, letters
from bench.comparison.model import Comparison, Entry, LeftOut, TestSet
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.comparison.answers import Evidence
    from bench.comparison.pairs import Pairs

__all__ = ["compare"]

#: Split -> the prefix of its metrics.
_PREFIXES = {"test": "test", "validation": "val"}


@dataclass(frozen=True, slots=True, eq=False)
class _Draft:
    """An entry on its way: what it is judged by, or why it cannot be."""

    entry: Entry
    fingerprint: str
    evidence: Evidence | None
    reason: str = ""


def compare(names: Sequence[str] = (), *, split: str = "test") -> Comparison:
    """Compare runs, groups and experiments by name; none: the latest experiment. `split` is "test" or "validation".

    The runs of one `bench run`, seeds or folds, are one entry, unless a run is named itself. Trials of a search are
    entries where they or their search's group are named. Nothing but the runs' folders is read, and no path that they
    record is followed. Raises RecipeError for a name that stands for nothing, or for several things.
    """
    prefix = _PREFIXES[split]
    chosen = choose(names, split_prefix=prefix)
    groups, copies = _without_copies(chosen.groups)
    drafts = _drafts(groups, split, prefix)
    sets = _divided(drafts)
    numbers = count(1)
    numbered = [{next(numbers): draft for draft in drafts} for drafts in sets]
    pairs, test_sets = _judged(numbered, split)
    tested = {number for one in numbered for number, draft in one.items() if draft.evidence is not None}
    shown = {number: letter for one in test_sets for number, letter in _letters(one, tested, pairs).items()}
    entries = [
        replace(draft.entry, number=number, test_set=place, letters=shown.get(number, ""))
        for place, one in enumerate(numbered)
        for number, draft in one.items()
    ]
    recipes = [read_keys(entry.runs[0]) for entry in entries]
    left_out = [*chosen.left_out, *copies, *_untested(numbered, recipes)]
    return Comparison(split, tuple(labelled(entries)), test_sets, differences(recipes), tuple(left_out), pairs)


def _without_copies(groups: Sequence[Sequence[Recorded]]) -> tuple[list[list[Recorded]], list[LeftOut]]:
    """Each run once. A copied folder has the id of its original: as one more seed it would make the spread smaller."""
    originals: dict[str, Recorded] = {}
    kept: list[list[Recorded]] = []
    copies = []
    for group in groups:
        own = []
        for one in group:
            first = originals.setdefault(str(one.info.get("id") or one.run.folder), one)
            if first is one:
                own.append(one)
            else:
                place = f"{first.run.folder.parent.name}/{first.run.name}"
                copies.append(LeftOut(one.run.name, one.run.folder.parent.name, f"a copy of {place}"))
        kept += [own] if own else []
    return kept, copies


def _drafts(groups: Sequence[Sequence[Recorded]], split: str, prefix: str) -> list[_Draft]:
    from bench.comparison.answers import Reader, evidence

    reader = Reader(split)
    drafts = []
    for group in groups:
        entry = entry_of(group, prefix=prefix)
        fingerprint = str(group[0].info["dataset"].get("fingerprint"))
        try:
            found = evidence(group, reader, kind=kind_of(group), prefix=prefix)
        except BenchError as error:
            drafts.append(_Draft(entry, fingerprint, None, str(error)))
        else:
            drafts.append(_Draft(entry, fingerprint, found))
    return drafts


def _divided(drafts: Sequence[_Draft]) -> list[list[_Draft]]:
    """The drafts by test set, the largest set and the best draft first. One without predictions joins the only set of
    its dataset, if there is only one.
    """
    sets: dict[Hashable, list[_Draft]] = {}
    homes: dict[Hashable, set[Hashable]] = {}
    for draft in drafts:
        if draft.evidence is not None:
            key = (draft.entry.dataset, draft.evidence.test_set)
            sets.setdefault(key, []).append(draft)
            homes.setdefault((draft.entry.dataset, draft.fingerprint), set()).add(key)
    for draft in drafts:
        if draft.evidence is None:
            data = (draft.entry.dataset, draft.fingerprint)
            known = homes.get(data, set())
            sets.setdefault(next(iter(known)) if len(known) == 1 else data, []).append(draft)
    ordered = sorted(sets.values(), key=len, reverse=True)
    return [sorted(one, key=lambda draft: -draft.entry.accuracy) for one in ordered]


def _judged(numbered: Sequence[Mapping[int, _Draft]], split: str) -> tuple[Pairs, tuple[TestSet, ...]]:
    from bench.comparison.pairs import judge

    evidences = [{n: draft.evidence for n, draft in one.items() if draft.evidence is not None} for one in numbered]
    pairs = judge(evidences)
    found = []
    for drafts, evidence in zip(numbered, evidences, strict=True):
        first = next(iter(drafts.values())).entry
        best = next(iter(evidence), None)
        apart = {n for pair in pairs.differing(of=best) for n in pair} if best is not None else set()
        tied = tuple(number for number in evidence if number != best and number not in apart)
        task = "verification" if "eer" in first.metrics else "classification"
        samples = None if best is None else evidence[best].samples
        notes = tuple(_notes(list(drafts.values()), split))
        found.append(TestSet(first.dataset, task, samples, tuple(drafts), best, tied, notes))
    return pairs, tuple(found)


def _letters(test_set: TestSet, tested: Collection[int], pairs: Pairs) -> dict[int, str]:
    """The letters of those that are tested."""
    if test_set.best is None:
        return {}
    numbers = [number for number in test_set.entries if number in tested]
    found = letters(numbers, pairs.differing(among=numbers)) if len(numbers) <= MOST_ENTRIES else None
    return found or {number: "a" if number in {test_set.best, *test_set.tied} else "-" for number in numbers}


def _notes(drafts: Sequence[_Draft], split: str) -> list[str]:
    """What makes the figures of a set less than certain."""
    found = []
    if len({draft.fingerprint for draft in drafts}) > 1:
        found.append("fingerprints of the dataset differ; the images compared have the same names and labels")
    if len({draft.entry.costs.machine for draft in drafts if draft.entry.costs.machine}) > 1:
        found.append("latencies were measured on different processors")
    if split == "validation":
        found.append("epochs were chosen on the validation images: their accuracies promise too much")
    return found


def _untested(numbered: Sequence[Mapping[int, _Draft]], recipes: Sequence[Any]) -> list[LeftOut]:
    """Entries that are shown as far as something is known of them, with what is not."""
    drafts = [draft for one in numbered for draft in one.values()]
    found = [
        LeftOut(d.entry.name, d.entry.experiment, f"not tested: {d.reason}", shown=True) for d in drafts if d.reason
    ]
    for draft, recipe in zip(drafts, recipes, strict=True):
        if recipe is None:
            reason = "recipe.toml is missing or damaged: it is not known what differs"
            found.append(LeftOut(draft.entry.name, draft.entry.experiment, reason, shown=True))
    return found
