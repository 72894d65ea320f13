"""Write the report of a run, a group or an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.files import write_text
from bench.reporting.chapter import Chapter, tell
from bench.reporting.opening import Opener
from bench.reporting.page import render
from bench.reporting.reading import Recorded, read_run
from bench.run_names import Named, resolve

if TYPE_CHECKING:
    from bench.progress import Progress
    from bench.record import Run

__all__ = ["Written", "write_report"]

#: Runs that an experiment's report tells of one by one; the comparison has them all.
_MOST_RUNS = 12


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """A report that has been written, with the figures in it."""

    path: Path
    name: str
    chapters: tuple[Chapter, ...]
    comparison: dict[str, Any] | None

    def as_json(self) -> dict[str, Any]:
        """Plain values for --json."""
        return {
            "report": str(self.path.resolve()),
            "bytes": self.path.stat().st_size,
            "name": self.name,
            "runs": [chapter.as_json() for chapter in self.chapters],
            **({} if self.comparison is None else {"comparison": self.comparison}),
        }


def write_report(name: str, *, output: Path | None = None, split: str | None = None, progress: Progress) -> Written:
    """Write the report of what `name` names to `output` (default: report_NAME.html in the current folder).

    That of a whole run is also kept in its folder, and so in MLflow.

    Raises RecipeError where nothing is called so, BenchError where a run has no results of the split that is asked for
    or the file cannot be written.
    """
    subject = resolve(name)
    path = output or Path(f"report_{_file_name(subject.name)}.html")
    _check_place(path)
    progress.note("reading the run" if subject.is_run else f"reading {len(subject.runs)} runs")
    opener = Opener(progress)
    if subject.is_run:
        recorded = read_run(subject.runs[0])
        chapters = [tell(recorded, opener, progress, split=split, prefix="r0", whole=True)]
        title = f"{recorded.info.get('experiment') or 'run'}: {subject.name}"
        text, compared = render(title, chapters), None
    else:
        chapters, text, compared = _several(subject, opener, progress, split)
    try:
        write_text(path, text)
    except OSError as cause:
        raise _unwritable(path, cause) from cause
    if subject.is_run and split is None:
        _keep(subject.runs[0], text, progress)
    return Written(path, subject.name, tuple(chapters), compared)


def _keep(run: Run, text: str, progress: Progress) -> None:
    """A copy in the run's folder, where MLflow's mirror takes it from; brought there where the run is mirrored."""
    from bench.tracking import OFF, sync, tracking_uri

    try:
        write_text(run.folder / "report.html", text)
    except OSError:  # somebody else's folder: the report itself has been written
        return
    if tracking_uri() != OFF and (run.folder / "mlflow.json").is_file():
        try:
            sync(run)
        except BenchError as error:
            progress.warn(f"MLflow does not have the report yet ({error}); bench sync brings it")


def _several(
    subject: Named, opener: Opener, progress: Progress, split: str | None
) -> tuple[list[Chapter], str, dict[str, Any] | None]:
    """The comparison, and a compact chapter a run, the newest first."""
    told, left_out = _readable(subject)
    section, compared, notes = _comparison(subject, split or _split(told))
    prints = {(one.info.get("dataset") or {}).get("fingerprint") for one in told} - {None}
    if len(prints) > 1:
        notes.append(
            f"These runs are of {len(prints)} different datasets: their figures are not comparable as they stand."
        )
    hidden = told[_MOST_RUNS:]
    left_out += [(one.run.name, f"only the {_MOST_RUNS} newest are shown one by one") for one in hidden]
    chapters = []
    for number, recorded in enumerate(told[:_MOST_RUNS]):
        try:
            chapters.append(tell(recorded, opener, progress, split=split, prefix=f"r{number}", whole=False))
        except BenchError as cause:
            left_out.append((recorded.run.name, str(cause)))
    text = render(subject.name, chapters, comparison=section, notes=notes, left_out=left_out)
    return chapters, text, compared


def _readable(subject: Named) -> tuple[list[Recorded], list[tuple[str, str]]]:
    """Runs that can be told of, newest first, finished ones before the others; and the rest with the reason.

    Reproductions are told of where their group is named.
    """
    told, left_out = [], []
    for run in reversed(subject.runs):
        try:
            recorded = read_run(run)
        except BenchError as cause:
            left_out.append((run.name, str(cause)))
            continue
        if "reproduces" in recorded.info and subject.kind != "group":
            left_out.append((run.name, f"a reproduction of {recorded.info['reproduces']}"))
        else:
            told.append(recorded)
    return sorted(told, key=lambda one: one.status != "finished"), left_out


def _split(told: Sequence[Recorded]) -> str:
    """The split that is compared where none is asked for: that of the test, which trials of a search do not have."""
    tested = any("test_accuracy" in one.metrics for one in told)
    return "validation" if not tested and any("val_accuracy" in one.metrics for one in told) else "test"


def _comparison(subject: Named, split: str) -> tuple[str, dict[str, Any] | None, list[str]]:
    """The comparison of the runs as HTML and as values; a note where they cannot be compared."""
    from bench.comparison import compare
    from bench.comparison.page import section

    try:
        comparison = compare([subject.name], split=split)
    except BenchError as cause:
        return "", None, [f"The runs cannot be compared: {cause}"]
    return section(comparison), comparison.as_json(), []


def _check_place(path: Path) -> None:
    """Raise BenchError where the file cannot be written, before the work is done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise _unwritable(path, cause) from cause
    if path.is_dir():
        raise _unwritable(path, IsADirectoryError(21, "it is a folder"))


def _unwritable(path: Path, cause: OSError) -> BenchError:
    return BenchError(f"{path}: cannot be written: {cause.strerror}", hint="--output FILE names another")


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
