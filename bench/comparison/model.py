"""What a comparison is made of: entries, the test sets that divide them, verdicts, and what was left out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from bench.comparison.pairs import Pairs
    from bench.record import Run

__all__ = ["LEVEL", "Comparison", "Costs", "Entry", "Kind", "LeftOut", "Part", "TestSet", "Verdict"]

#: A difference is called one where its p-value, adjusted for all pairs, is below this.
LEVEL = 0.05

#: A single run; runs of one recipe that differ in their seeds; or in the fold that they are tested on.
Kind: TypeAlias = Literal["run", "seeds", "folds"]


@dataclass(frozen=True, slots=True)
class Costs:
    """What an entry costs; None: not recorded. Sizes are 10^6 bytes, latencies those of one image, end to end.

    `precision` is that of the exported file that size and latencies belong to, `machine` the processor that they were
    measured on. Training times are means over the entry's runs, with what is fitted before the first epoch.
    """

    parameters: float | None = None
    macs: float | None = None
    train_seconds: float | None = None
    images_per_second: float | None = None
    onnx_mb: float | None = None
    precision: str | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    machine: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A run, or the runs of one `bench run` that differ in seed or fold only.

    `number` counts from 1, the most accurate first, test set by test set. `metrics` are means over the runs, without
    their split's prefix. `interval` is the accuracy's: Wilson's of a run, Student's t of seeds, and over folds one
    standard error either way. Entries of one test set that share one of `letters` cannot be told apart; '' is not tested.
    """

    number: int
    label: str
    name: str
    kind: Kind
    experiment: str
    recipe: str
    dataset: str
    runs: tuple[Run, ...]
    accuracy: float
    interval: tuple[float, float]
    metrics: Mapping[str, float]
    costs: Costs
    test_set: int = 0
    letters: str = ""

    @property
    def tested(self) -> bool:
        """Whether its predictions are there to be tested."""
        return bool(self.letters)

    def as_json(self) -> dict[str, Any]:
        """The entry as JSON knows it."""
        kept = ("number", "label", "name", "kind", "experiment", "recipe", "dataset", "accuracy", "test_set", "letters")
        return {name: getattr(self, name) for name in kept} | {
            "runs": [run.name for run in self.runs],
            "interval": list(self.interval),
            "interval_of": {"run": "Wilson 95 %", "seeds": "t 95 %", "folds": "standard error"}[self.kind],
            "metrics": dict(self.metrics),
            "costs": asdict(self.costs),
        }


@dataclass(frozen=True, slots=True)
class TestSet:
    """Entries that were tested on the same images: only these are compared.

    `entries` are their numbers, `best` is the most accurate one that is tested (None: none is), `tied` those that cannot
    be told from it. `samples` is None where no entry has predictions; `notes` say what makes the set less than certain.
    """

    __test__ = False  # for pytest, which collects what is called so

    dataset: str
    task: str
    samples: int | None
    entries: tuple[int, ...]
    best: int | None = None
    tied: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """One of the questions behind a verdict: its test, p-value, and the 95 % interval of the difference."""

    test: str
    p: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Two entries of one test set. `difference` is the accuracy of `first`, the more accurate one, minus `second`'s.

    `p` is the pair's own, `adjusted` corrected by Holm for all pairs. The interval is that of this pair alone. Where
    seeds vary, both `parts` have to show the difference; p is the larger of theirs, the interval the wider one.
    """

    first: int
    second: int
    difference: float
    low: float
    high: float
    p: float
    adjusted: float
    test: str
    parts: tuple[Part, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether the first is better; otherwise no difference is detectable."""
        return self.adjusted < LEVEL

    def as_json(self) -> dict[str, Any]:
        """The verdict as JSON knows it."""
        return asdict(self) | {"verdict": "better" if self.differs else "no difference detectable"}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A run that is not compared, and why. `shown`: its figures are in the table nevertheless."""

    name: str
    experiment: str
    reason: str
    shown: bool = False


@dataclass(frozen=True, eq=False)
class Comparison:
    """Entries in the order of their numbers, and everything that can be said of them.

    `differences` holds for each recipe key that differs its value in each entry (None: not set); `num_pairs` is how many
    verdicts share Holm's correction.
    """

    split: str
    entries: tuple[Entry, ...]
    test_sets: tuple[TestSet, ...]
    differences: Mapping[str, tuple[Any, ...]]
    left_out: tuple[LeftOut, ...]
    pairs: Pairs = field(repr=False)

    @property
    def num_pairs(self) -> int:
        """How many pairs were tested."""
        return len(self.pairs)

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Every pair of every test set, in the order of their entries."""
        return tuple(self.pairs.verdicts())

    def against(self, number: int) -> tuple[Verdict, ...]:
        """The verdicts on one entry, corrected for all pairs nevertheless."""
        return tuple(self.pairs.verdicts(of=number))

    def among(self, numbers: Collection[int]) -> tuple[Verdict, ...]:
        """The verdicts among some entries, corrected for all pairs nevertheless."""
        return tuple(self.pairs.verdicts(among=numbers))

    def reordered(self, order: Sequence[int]) -> Comparison:
        """The same with its entries in this order of positions."""
        entries = tuple(self.entries[index] for index in order)
        differences = {key: tuple(values[index] for index in order) for key, values in self.differences.items()}
        return Comparison(self.split, entries, self.test_sets, differences, self.left_out, self.pairs)

    def as_json(self) -> dict[str, Any]:
        """Everything, every pair included."""
        return {
            "split": self.split,
            "entries": [entry.as_json() for entry in self.entries],
            "test_sets": [asdict(one) for one in self.test_sets],
            "level": LEVEL,
            "pairs_corrected_for": self.num_pairs,
            "verdicts": [one.as_json() for one in self.verdicts],
            "differences": {key: list(values) for key, values in self.differences.items()},
            "left_out": [asdict(one) for one in self.left_out],
        }
