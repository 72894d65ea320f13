"""The leaderboard: the entries of each dataset, ranked, and what is not on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.leaderboard.candidates import Candidate, choose, collect
from bench.leaderboard.facts import Entry
from bench.leaderboard.measuring import measure, read_answers
from bench.leaderboard.recipes import RecipeFile, differences, recipe_files
from bench.leaderboard.ties import ranked

__all__ = ["Board", "Section", "build", "sections_of"]


@dataclass(frozen=True, slots=True)
class Section:
    """One test set: its dataset's name, its size, and the entries by rank."""

    dataset: str
    num_test: int
    entries: tuple[Entry, ...]

    @property
    def title(self) -> str:
        """The dataset and how many images, or pairs of images, it tests with."""
        what = "pair" if self.entries[0].pairs else "image"
        return f"{self.dataset}: {self.num_test:,} test {what}{'' if self.num_test == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Board:
    """Everything that is shown. `left_out` counts runs by reason; `not_measured` are recipes without an entry."""

    sections: tuple[Section, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    not_measured: tuple[str, ...] = ()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries, section by section."""
        return tuple(entry for section in self.sections for entry in section.entries)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        sections = [
            {"dataset": one.dataset, "num_test": one.num_test, "entries": [entry.as_json() for entry in one.entries]}
            for one in self.sections
        ]
        return {"sections": sections, "left_out": dict(self.left_out), "not_measured": list(self.not_measured)}


def build(experiments: Sequence[str] = (), *, recipes: Path | None = None) -> Board:
    """The board of the recorded runs, of all experiments or those named.

    With `recipes`, a folder, only runs of its recipe files as they are today count. Raises RecipeError for an experiment
    without runs, and for a folder without recipes.
    """
    collected = collect(experiments)
    left_out = dict(collected.left_out)
    files = () if recipes is None else recipe_files(recipes)
    candidates = list(collected.candidates)
    if files:
        known = {file.identity for file in files}
        others = sum(len(one.runs) for one in candidates if one.identity not in known)
        candidates = [one for one in candidates if one.identity in known]
        left_out |= {"of other or changed recipes": others} if others else {}
    chosen = _chosen(candidates)
    entries = [_as_file(entry, candidate, files) for entry, candidate in chosen] if files else _told_apart(chosen)
    sections = sections_of(entries)
    present = {entry.recipe for entry in entries}
    return Board(sections, left_out, tuple(file.name for file in files if file.name not in present))


def sections_of(entries: Iterable[Entry]) -> tuple[Section, ...]:
    """The entries by test set, the set with most entries first; each ranked anew.

    An entry whose predictions are missing belongs to the test set of another with the same data.
    """
    entries = list(entries)
    known = {(one.dataset, one.fingerprint, one.num_test): one.test_set for one in entries if one.test_set}
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        seen = (entry.dataset, entry.fingerprint, entry.num_test)
        groups.setdefault(entry.test_set or known.get(seen, repr(seen)), []).append(entry)
    sections = [Section(_title(members), members[0].num_test, tuple(ranked(members))) for members in groups.values()]
    return tuple(sorted(sections, key=lambda one: (-len(one.entries), one.dataset, one.num_test)))


def _chosen(candidates: Sequence[Candidate]) -> list[tuple[Entry, Candidate]]:
    """The entry of each recipe and test set. Predictions are read only of what may be chosen.

    Runs whose data have one fingerprint share their test set; so first one of each fingerprint is chosen, then one of
    each test set.
    """
    from bench.comparison.answers import Reader

    reader = Reader("test")
    by_data: dict[tuple[Any, ...], list[Candidate]] = {}
    for one in candidates:
        by_data.setdefault((one.identity, one.kind == "folds", *one.dataset), []).append(one)
    first = {key: choose(members).candidate for key, members in by_data.items()}
    read = {id(one): read_answers(one, reader) for one in first.values()}
    by_test: dict[tuple[Any, ...], list[Candidate]] = {}
    for key, members in by_data.items():
        answers = read[id(first[key])]
        by_test.setdefault((key[0], key if isinstance(answers, str) else answers.test_set), []).extend(members)
    found = []
    for members in by_test.values():
        choice = choose(sorted(members, key=lambda one: one.runs[0].name))
        answers = read.get(id(choice.candidate)) or read_answers(choice.candidate, reader)
        found.append((measure(choice, answers), choice.candidate))
    return found


def _as_file(entry: Entry, candidate: Candidate, files: Sequence[RecipeFile]) -> Entry:
    """Under the name of the recipe file that says the same; of several, the one that was run."""
    fit = [file for file in files if file.identity == candidate.identity]
    file = next((file for file in fit if file.name == candidate.recipe), fit[0])
    return replace(entry, recipe=file.name, recipe_digest=file.digest, published=file.published)


def _told_apart(chosen: Sequence[tuple[Entry, Candidate]]) -> list[Entry]:
    """Each entry says what `--set` changed; those that look the same nevertheless, in which keys they differ."""
    named = [replace(entry, changes=one.changes) for entry, one in chosen]
    labels = [(entry.label, entry.test_set or entry.fingerprint) for entry in named]
    changes: dict[int, str] = {}
    for label in {label for label in labels if labels.count(label) > 1}:
        places = [i for i, (_, one) in enumerate(chosen) if labels[i] == label and one.given]
        changes |= dict(zip(places, differences([chosen[i][1].given for i in places]), strict=True))
    return [
        replace(entry, changes=", ".join(filter(None, [entry.changes, changes.get(i, "")])))
        for i, entry in enumerate(named)
    ]


def _title(entries: Sequence[Entry]) -> str:
    """What the test set is called: by its runs' dataset, the most frequent name first."""
    names = Counter(entry.dataset for entry in entries)
    return ", ".join(name for name, _ in sorted(names.items(), key=lambda one: (-one[1], one[0])))
