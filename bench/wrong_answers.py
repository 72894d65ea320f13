"""A run's worst mistakes, its least certain answers, and the classes that it confuses, from its saved predictions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from bench.errors import BenchError, RecipeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bench.predictions import SavedPredictions
    from bench.record import Run

__all__ = ["Confusion", "Kind", "Mistakes", "Sample", "look"]

Kind: TypeAlias = Literal["right", "wrong", "false accept", "false reject"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One prediction. Of pairs, `probability` is the score for "same", whatever the guess was."""

    id: str
    kind: Kind
    true_class: str
    guess: str
    probability: float
    true_probability: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many samples of a class were taken for another one, and how many samples the class has."""

    true_class: str
    guess: str
    count: int
    samples: int


@dataclass(frozen=True, slots=True)
class Mistakes:
    """What `look` found. `wrong` counts all mistakes, `samples` holds the k that are shown of each kind.

    `threshold` is the score from which on a pair is the same; None for classes.
    """

    run: str
    experiment: str
    split: str
    num_samples: int
    wrong: int
    samples: tuple[Sample, ...]
    confusions: tuple[Confusion, ...]
    threshold: float | None
    chosen_class: str | None = None


def look(
    run: Run, *, split: str | None = None, count: int = 20, class_name: str | None = None, uncertain: bool = False
) -> Mistakes:
    """A run's worst mistakes, or its least certain answers, from its saved predictions.

    Raises BenchError where there are no predictions, RecipeError for a class that the run does not know.
    """
    from bench.predictions import read_predictions, saved_splits

    known = saved_splits(run)
    saved = read_predictions(run, split or (known[0] if known else "test"))
    classes = _classes(run, saved)
    info = run.info()
    chosen = _chosen(saved, classes, class_name)
    threshold = _threshold(run, saved.split)
    rows = _uncertain(saved, chosen, threshold) if uncertain else _worst(saved, chosen, threshold)
    shown = [row for part in rows for row in part[:count].tolist()]
    return Mistakes(
        run=run.name,
        experiment=info["experiment"],
        split=saved.split,
        num_samples=len(chosen),
        wrong=int((~saved.right[chosen]).sum()),
        samples=tuple(_sample(saved, row, classes, pairs=threshold is not None) for row in shown),
        confusions=_confusions(saved, chosen, classes),
        threshold=threshold,
        chosen_class=class_name,
    )


def _classes(run: Run, saved: SavedPredictions) -> tuple[str, ...]:
    """The class names of the plan. Raises BenchError where the predictions are of other classes."""
    path = run.folder / "plan.json"
    try:
        names = tuple(json.loads(path.read_text(encoding="utf-8")).get("classes") or ())
    except (OSError, ValueError) as cause:
        raise BenchError(
            f"{path}: cannot be read: {cause}", hint="restore the file from where it was copied"
        ) from cause
    width = saved.probabilities.shape[1] if saved.probabilities.ndim > 1 else 1
    largest = max(saved.labels.max(initial=0), saved.guesses.max(initial=0))
    if len(names) != width or largest >= width:
        raise BenchError(
            f"run {run.name}: plan.json names {len(names)} classes, but the {saved.split} predictions are of {width}",
            hint="the folder holds files of different runs; restore it from where it was copied",
        )
    return names


def _chosen(saved: SavedPredictions, classes: Sequence[str], name: str | None) -> NDArray[np.intp]:
    """The positions of the samples that are looked at."""
    import numpy as np

    if name is None:
        return np.arange(len(saved))
    if name not in classes:
        from bench.registry import near_miss

        names = f"; known: {', '.join(classes[:20])}" + (", ..." if len(classes) > 20 else "")  # noqa: PLR2004
        raise RecipeError(f"--class: there is no class {name!r}{near_miss(name, classes) or names}")
    index = list(classes).index(name)
    return np.flatnonzero((saved.labels == index) | (saved.guesses == index))


def _threshold(run: Run, split: str) -> float | None:
    """The threshold of a run on pairs."""
    metrics = run.info().get("metrics") or {}
    try:
        evaluation = json.loads((run.folder / "evaluation.json").read_text(encoding="utf-8"))
        value = evaluation[split].get("threshold", metrics.get("threshold"))
    except (OSError, ValueError, KeyError):
        value = metrics.get("threshold")
    return None if value is None else float(value)


def _worst(saved: SavedPredictions, chosen: NDArray[np.intp], threshold: float | None) -> tuple[NDArray[np.intp], ...]:
    """Positions of the mistakes, the most confident first; of pairs the false accepts, then the false rejects."""
    import numpy as np

    wrong = chosen[~saved.right[chosen]]
    if threshold is not None:
        scores = saved.probabilities[:, 1]
        accepts, rejects = wrong[saved.labels[wrong] == 0], wrong[saved.labels[wrong] == 1]
        return accepts[np.argsort(-scores[accepts], kind="stable")], rejects[np.argsort(scores[rejects], kind="stable")]
    taken, true = _of(saved, saved.guesses)[wrong], _of(saved, saved.labels)[wrong]
    return (wrong[np.lexsort((true, -taken))],)


def _uncertain(
    saved: SavedPredictions, chosen: NDArray[np.intp], threshold: float | None
) -> tuple[NDArray[np.intp], ...]:
    """Positions by how little the two most probable classes differ; of pairs by the distance from the threshold."""
    import numpy as np

    if threshold is not None:
        return (chosen[np.argsort(np.abs(saved.probabilities[chosen, 1] - threshold), kind="stable")],)
    highest = np.sort(saved.probabilities[chosen], axis=1)
    return (chosen[np.argsort(highest[:, -1] - highest[:, -2], kind="stable")],)


def _of(saved: SavedPredictions, classes: NDArray[np.int64]) -> NDArray[np.float32]:
    import numpy as np

    picked: NDArray[np.float32] = np.take_along_axis(saved.probabilities, classes[:, None], axis=1)[:, 0]
    return picked


def _sample(saved: SavedPredictions, row: int, classes: Sequence[str], *, pairs: bool) -> Sample:
    label, guess = int(saved.labels[row]), int(saved.guesses[row])
    kind: Kind = "right" if label == guess else "wrong"
    if pairs and label != guess:
        kind = "false accept" if guess else "false reject"
    return Sample(
        id=str(saved.ids[row]),
        kind=kind,
        true_class=classes[label],
        guess=classes[guess],
        probability=float(saved.probabilities[row, 1 if pairs else guess]),
        true_probability=float(saved.probabilities[row, label]),
    )


def _confusions(saved: SavedPredictions, chosen: NDArray[np.intp], classes: Sequence[str]) -> tuple[Confusion, ...]:
    """Every pair of classes that was confused, the most frequent first."""
    import numpy as np

    size = np.bincount(saved.labels, minlength=len(classes))
    wrong = chosen[~saved.right[chosen]]
    pairs, counts = np.unique(saved.labels[wrong] * len(classes) + saved.guesses[wrong], return_counts=True)
    found = []
    for index in np.argsort(-counts, kind="stable").tolist():
        true, guess = divmod(int(pairs[index]), len(classes))
        found.append(Confusion(classes[true], classes[guess], int(counts[index]), int(size[true])))
    return tuple(found)
