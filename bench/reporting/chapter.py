"""Everything that a report shows of one run, as values for the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.reporting import facts
from bench.reporting.calibration import Calibration, calibrate
from bench.reporting.costs import costs
from bench.reporting.galleries import cells, galleries
from bench.reporting.judged import Judged, checked_predictions, judge
from bench.reporting.opening import Opened
from bench.reporting.pictures import Album
from bench.reporting.plots import Plot, confidence_plot, curve_plots, reliability_plot, roc_plot, scores_plot
from bench.reporting.samples import augmented, drawn, samples
from bench.reporting.slices import Slice, slices

if TYPE_CHECKING:
    from bench.progress import Progress
    from bench.reporting.opening import Opener
    from bench.reporting.reading import Recorded
    from bench.stages.layers import ModelTable

__all__ = ["Chapter", "tell"]

_COMPACT_GALLERY = 8


@dataclass(eq=False)
class Chapter:
    """One run. `notes` are what a reader must know first: what is damaged, missing or changed."""

    recorded: Recorded
    prefix: str
    whole: bool
    judged: Judged | None
    notes: list[str]
    opened: Opened | None = None
    album: Album | None = None
    calibration: Calibration | None = None
    table: ModelTable | None = None
    no_table: str = ""
    slices: list[Slice] = field(default_factory=list)
    shown: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The figures of the report."""
        judged, found = self.judged, self.calibration
        values: dict[str, Any] = {
            "run": self.recorded.run.name,
            "status": self.recorded.status,
            "notes": self.notes,
            "images": self.album is not None,
        }
        if judged is not None:
            values |= {"split": judged.split, "samples": judged.num_samples, "accuracy": judged.accuracy}
            values["classes"] = judged.class_rows()
        if found is not None:
            values["calibration"] = {
                "ece": found.error,
                "ece_scaled": found.error_scaled,
                "temperatures": list(found.temperatures),
                "fitted_on": found.fitted_on,
                "undetermined": found.undetermined,
            }
        values["slices"] = [
            {"kind": one.kind, "name": one.name, "samples": one.samples, "accuracy": one.accuracy,
             "low": one.low, "high": one.high, "small": one.small, "below": one.below}
            for one in self.slices
        ]  # fmt: skip
        return values


def tell(
    recorded: Recorded, opener: Opener, progress: Progress, *, split: str | None, prefix: str, whole: bool
) -> Chapter:
    """Gather a run's chapter: in whole, or for an experiment the compact form. Raises BenchError for a split it lacks."""
    notes = list(recorded.problems)
    judged = judge(recorded, split, notes)
    chapter = Chapter(recorded, prefix, whole, judged, notes)
    _open(chapter, opener)
    _calibrate(chapter)
    progress.note(f"drawing {recorded.run.name}")
    if whole:
        found = facts.layers(recorded)
        chapter.table, chapter.no_table = (None, found) if isinstance(found, str) else (found, "")
        positions = chapter.album.positions if chapter.album is not None else None
        chapter.slices = [] if judged is None else slices(judged, chapter.opened, positions)
    chapter.shown = _shown(chapter)
    return chapter


def _open(chapter: Chapter, opener: Opener) -> None:
    """The run's dataset and the album of the split shown; a note where the images cannot be shown."""
    found = opener.open(chapter.recorded)
    if isinstance(found, str):
        chapter.notes.insert(0, f"This report has no images, as the dataset is not to be had here: {found}")
        return
    chapter.opened = found
    if found.changed:
        chapter.notes.insert(
            0,
            "The dataset here is not the one that the run was made with: its fingerprint differs. Images are found by "
            "their names and may be others.",
        )
    judged = chapter.judged
    if judged is None or judged.predictions is None or judged.split not in found.data.splits:
        return
    album = Album(found, judged.predictions, prefix=f"{chapter.prefix}-")
    missing = int((album.positions < 0).sum())
    if missing:
        chapter.notes.append(f"{missing:,} of {judged.num_samples:,} predicted samples are not in the dataset here")
    if missing < judged.num_samples:
        chapter.album = album


def _calibrate(chapter: Chapter) -> None:
    judged = chapter.judged
    if judged is None or judged.predictions is None or _is_distance(chapter.recorded):
        return
    validation = None
    if judged.split != "validation":
        validation = checked_predictions(chapter.recorded, "validation", chapter.notes, num_classes=len(judged.classes))
    chapter.calibration = calibrate(judged.predictions, validation)


def _is_distance(recorded: Recorded) -> bool:
    """Whether the scores are no probabilities, so that they cannot be calibrated."""
    return recorded.recipe is not None and recorded.recipe.train.loss == "contrastive"


def _shown(chapter: Chapter) -> dict[str, Any]:
    """What the template prints, beside the chapter itself."""
    recorded, judged, album = chapter.recorded, chapter.judged, chapter.album
    folds = facts.siblings(recorded)
    most = {} if chapter.whole else {"most": _COMPACT_GALLERY}
    shown: dict[str, Any] = {
        "tiles": facts.tiles(recorded, judged, chapter.table),
        "about": facts.about(recorded),
        "measures": facts.measures(recorded, judged),
        "badge": facts.badge(recorded.status),
        "curves": curve_plots(recorded.epochs, result_epoch=facts.result_epoch(recorded), prefix=chapter.prefix),
        "plots": _plots(chapter),
        "galleries": [] if judged is None else galleries(judged, album, **most),
        "folds": folds,
        "folds_mean": facts.mean_of_folds(folds),
    }
    if chapter.whole:
        shown |= {
            "cells": {} if judged is None else cells(judged, album),
            "class_rows": [] if judged is None else judged.class_rows(),
            "samples": [] if chapter.opened is None else samples(chapter.opened),
            "augmented": _augmented(chapter),
            "drawn": drawn(recorded) if chapter.opened is None else [],
            "costs": _costs(chapter),
            "environment": facts.environment(recorded),
            "plan": facts.plan_rows(recorded),
        }
    return shown


def _plots(chapter: Chapter) -> list[Plot]:
    judged, prefix = chapter.judged, chapter.prefix
    if judged is None or judged.predictions is None:
        return []
    found, confidence = [], judged.confidences()
    if judged.pairs:
        labels = judged.predictions.labels
        if len(set(labels.tolist())) > 1:
            found.append(roc_plot(confidence, labels, judged.metrics.get("eer"), prefix=prefix))
        found.append(scores_plot(confidence, labels, judged.threshold, prefix=prefix))
    elif chapter.whole:
        found.append(confidence_plot(confidence, judged.predictions.right, prefix=prefix))
    if chapter.calibration is not None and chapter.whole:
        found.append(reliability_plot(chapter.calibration, prefix=prefix))
    return found


def _costs(chapter: Chapter) -> dict[str, Any] | None:
    """Exports and latency; a note where their records are not what they should be."""
    try:
        return costs(chapter.recorded, chapter.judged, prefix=chapter.prefix)
    except (AttributeError, KeyError, TypeError, ValueError) as cause:
        chapter.notes.append(f"the records in export/ are damaged: {type(cause).__name__}: {cause}")
        return None


def _augmented(chapter: Chapter) -> list[Any]:
    recipe = chapter.recorded.recipe
    return [] if chapter.opened is None or recipe is None else list(augmented(recipe, chapter.opened))
