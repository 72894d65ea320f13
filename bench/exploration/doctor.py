"""What is wrong with a dataset: findings in order of how much they spoil a result, each with what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bench.exploration.duplicates import exact, near

if TYPE_CHECKING:
    from bench.exploration.duplicates import NearPair, NearPairs
    from bench.exploration.survey import Survey
    from bench.progress import Progress

__all__ = ["Case", "Finding", "examine"]

_IMBALANCE = 10.0  # images of the largest class for one of the smallest
_CONSTANT = 2.0  # standard deviation of grey values, of 255
_ENLARGED = 4.0  # times that an image grows to the recipe's size


@dataclass(frozen=True, slots=True)
class Case:
    """One instance of a finding: positions in the survey, and what there is to say about them."""

    images: tuple[int, ...]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A kind of fault with all its cases, named in the singular and the plural.

    An "error" makes results wrong or stops a run.
    """

    key: str
    severity: Literal["error", "warning", "note"]
    one: str
    many: str
    advice: str
    cases: tuple[Case, ...] = ()
    total: int | None = None

    @property
    def count(self) -> int:
        """How often it occurs."""
        return len(self.cases) if self.total is None else self.total

    @property
    def title(self) -> str:
        """What there are `count` of."""
        return self.one if self.count == 1 else self.many

    def as_json(self, survey: Survey) -> dict[str, Any]:
        """Plain values, with every file."""
        cases = [
            {"images": [_image(survey, index) for index in case.images], "detail": case.detail} for case in self.cases
        ]
        values = {"key": self.key, "severity": self.severity, "title": self.title, "count": self.count}
        return {**values, "advice": self.advice, "cases": cases}


def examine(survey: Survey, size: tuple[int, int], progress: Progress) -> tuple[Finding, ...]:
    """Every finding that occurs; `size` (height, width) is what the recipe resizes to. Leaks come first."""
    same = exact(survey)
    alike = near(survey, report=lambda done, total: progress.advance("comparing images", done, total))
    found = [
        *_duplicates(survey, same, alike),
        _imbalance(survey),
        _constant(survey),
        _tiny(survey, size),
        _within_groups(alike),
    ]
    return tuple(finding for finding in found if finding is not None and finding.count)


def _duplicates(survey: Survey, same: Sequence[tuple[int, ...]], alike: NearPairs) -> Iterator[Finding]:
    exact_cases = [Case(images, _how_exact(survey, images)) for images in same]
    near_cases = [Case((pair.first, pair.second), _how_near(pair)) for pair in alike.pairs]
    leaks = (
        "Remove the copies from one side (or give copies the same group, where a run makes the split itself): a test is "
        "worth something only on images that were not trained on."
    )
    yield Finding(
        "exact_leaks",
        "error",
        "image that stands in more than one split",
        "images that stand in more than one split",
        leaks,
        tuple(case for case in exact_cases if _leaks(survey, case)),
    )
    crowd = "So many images here are alike that most of these need not be copies. " if alike.crowded else ""
    yield Finding(
        "near_leaks",
        "warning" if alike.crowded else "error",
        "pair of nearly identical images in different splits",
        "pairs of nearly identical images in different splits",
        crowd + leaks,
        tuple(case for case in near_cases if _leaks(survey, case)),
    )
    unreadable = [Case((index,), look.reason) for index, look in enumerate(survey.looks) if look.reason]
    yield Finding(
        "unreadable",
        "error",
        "image that cannot be read",
        "images that cannot be read",
        "Repair or remove them, or leave them out: --set data.bad_images=skip",
        tuple(unreadable),
    )
    conflicts = [case for case in (*exact_cases, *near_cases) if _conflict(survey, case)]
    yield Finding(
        "label_conflicts",
        "warning",
        "duplicate with different labels",
        "duplicates with different labels",
        "Look at them and correct the wrong label; where both hold, the classes overlap.",
        tuple(Case(case.images, f"{case.detail}: {_labels(survey, case)}") for case in conflicts),
    )
    group = "Keep one of each, or give copies the same group, so that no split made later divides them."
    yield Finding(
        "exact_duplicates",
        "warning",
        "set of identical images within a split",
        "sets of identical images within a split",
        group,
        tuple(case for case in exact_cases if not _leaks(survey, case)),
    )
    yield Finding(
        "near_duplicates",
        "warning",
        "pair of nearly identical images within a split",
        "pairs of nearly identical images within a split",
        crowd + group,
        tuple(case for case in near_cases if not _leaks(survey, case)),
    )


def _imbalance(survey: Survey) -> Finding | None:
    cases = []
    for name, split in survey.dataset.splits.items():
        counts = np.bincount(np.asarray(split.labels), minlength=len(survey.dataset.classes))
        low, high = int(counts.argmin()), int(counts.argmax())
        if counts[high] > _IMBALANCE * counts[low]:
            ratio = f"{counts[high] / counts[low]:.0f} to 1" if counts[low] else "a class without any"
            classes = survey.dataset.classes
            cases.append(
                Case((), f"{name}: {classes[high]} {counts[high]:,}, {classes[low]} {counts[low]:,} ({ratio})")
            )
    advice = "Try --set train.class_weights=balanced, and judge by balanced accuracy and macro F1."
    what = f"whose largest class is over {_IMBALANCE:.0f} times the smallest"
    return Finding("imbalance", "warning", f"split {what}", f"splits {what}", advice, tuple(cases))


def _constant(survey: Survey) -> Finding:
    flat = [index for index in survey.readable.tolist() if survey.looks[index].spread < _CONSTANT]
    cases = [Case((index,), f"grey values deviate by {survey.looks[index].spread:.1f} of 255") for index in flat]
    return Finding(
        "constant",
        "warning",
        "image of one colour",
        "images of one colour",
        "They show nothing; remove them.",
        tuple(cases),
    )


def _tiny(survey: Survey, size: tuple[int, int]) -> Finding:
    limits = (size[1] / _ENLARGED, size[0] / _ENLARGED)
    cases = []
    for index in survey.readable.tolist():
        look = survey.looks[index]
        width, height = look.cut
        if width < limits[0] or height < limits[1]:
            cases.append(Case((index,), f"{width} x {height} pixels"))
    what = f"less than a quarter as wide or high as data.size ({size[1]} x {size[0]})"
    return Finding(
        "tiny",
        "warning",
        f"image {what}",
        f"images {what}",
        "Enlarging adds nothing: find larger originals or lower data.size.",
        tuple(cases),
    )


def _within_groups(alike: NearPairs) -> Finding:
    what = "of similar images that share a group"
    advice = "Expected where groups are frames of a scene or photographs of a person; no split divides a group."
    return Finding("within_groups", "note", f"pair {what}", f"pairs {what}", advice, total=alike.within_groups)


def _leaks(survey: Survey, case: Case) -> bool:
    return len({survey.parts[index] for index in case.images}) > 1


def _conflict(survey: Survey, case: Case) -> bool:
    """Whether one picture has two labels; for verification, two identities."""
    if survey.labels[case.images[0]] >= 0:
        return len({int(survey.labels[index]) for index in case.images}) > 1
    groups = {survey.label(index) for index in case.images} - {""}
    return len(groups) > 1


def _labels(survey: Survey, case: Case) -> str:
    return " and ".join(sorted({repr(survey.label(index)) for index in case.images}))


def _how_exact(survey: Survey, images: Sequence[int]) -> str:
    files = {survey.looks[index].file_hash for index in images}
    return "the same pixels in different files" if len(files) > 1 else "identical"


def _how_near(pair: NearPair) -> str:
    return f"{pair.score:.1%} alike" + (", mirrored" if pair.mirrored else "")


def _image(survey: Survey, index: int) -> dict[str, Any]:
    return {"name": survey.names[index], "split": survey.parts[index], "label": survey.label(index)}
