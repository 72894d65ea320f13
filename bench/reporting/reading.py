"""What a run's folder says, as far as it can be read: a report is made of what there is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.recipe import Recipe
    from bench.record import Run

__all__ = ["Recorded", "read_run"]


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """One run. What is missing is empty; what is there and cannot be read is named in `problems`.

    `recipe` is None where the recipe no longer parses here, for instance without its plugins.
    """

    run: Run
    info: Mapping[str, Any]
    status: str
    epochs: tuple[Mapping[str, Any], ...]
    evaluation: Mapping[str, Any]
    plan: Mapping[str, Any]
    recipe_text: str
    recipe: Recipe | None
    exports: Mapping[str, Mapping[str, Any]]
    latency: Mapping[str, Any]
    problems: tuple[str, ...]

    @property
    def metrics(self) -> Mapping[str, float]:
        """The final metrics; {} where the run has not come to its end."""
        values = self.info.get("metrics")
        return values if isinstance(values, Mapping) else {}

    @property
    def pairs(self) -> bool:
        """Whether it judges pairs of images."""
        return self.plan.get("task") == "verification" or "threshold" in self.metrics

    def classes(self) -> tuple[str, ...]:
        """The class names in label order; () where nothing tells them."""
        if self.plan.get("classes"):
            return tuple(map(str, self.plan["classes"]))
        for values in self.evaluation.values():
            return tuple(str(entry["name"]) for entry in values["classes"])
        counts = (self.info.get("dataset") or {}).get("counts") or {}
        return tuple(next(iter(counts.values()), {}))

    def counts(self, split: str) -> int:
        """How many samples a split has; 0 where that is not known."""
        counts = (self.info.get("dataset") or {}).get("counts") or {}
        return sum((counts.get(split) or {}).values())


def read_run(run: Run) -> Recorded:
    """Read a run's folder. Raises BenchError only where run.json itself is missing or damaged."""
    info: Any = run.info()
    if not isinstance(info, Mapping) or "status" not in info:
        raise BenchError(f"{run.folder}: run.json says nothing of a run")
    problems: list[str] = []
    text = _text(run.folder / "recipe.toml", problems)
    gates = sorted((run.folder / "export").glob("*.gate.json"))
    return Recorded(
        run=run,
        info=info,
        status=run.status(),
        epochs=_epochs(run, problems),
        evaluation=_evaluation(_json(run.folder / "evaluation.json", problems), problems),
        plan=_plan(_json(run.folder / "plan.json", problems), problems),
        recipe_text=text,
        recipe=_recipe(text, run.folder / "recipe.toml", problems),
        exports={path.name.removesuffix(".gate.json"): _json(path, problems) for path in gates},
        latency=_json(run.folder / "export" / "latency.json", problems),
        problems=tuple(problems),
    )


def _text(path: Path, problems: list[str]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        problems.append(f"{path.name} is missing")
    except (OSError, ValueError) as cause:
        problems.append(f"{path.name} cannot be read: {cause}")
    return ""


def _json(path: Path, problems: list[str]) -> dict[str, Any]:
    """An object; {} where the file is missing, which is no problem, or damaged, which is one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as cause:
        problems.append(f"{path.name} is damaged: {cause}")
        return {}
    if not isinstance(value, dict):
        problems.append(f"{path.name} is damaged: it holds no object")
        return {}
    return value


def _epochs(run: Run, problems: list[str]) -> tuple[Mapping[str, Any], ...]:
    path = run.folder / "metrics.jsonl"
    try:
        lines: list[Any] = run.epochs()
        whole = sum(1 for line in path.read_bytes().splitlines() if line.strip()) if path.is_file() else 0
    except (OSError, ValueError) as cause:
        problems.append(f"metrics.jsonl cannot be read: {cause}")
        return ()
    good = tuple(
        line
        for line in lines
        if isinstance(line, Mapping) and isinstance(line.get("epoch"), int) and isinstance(line.get("values"), Mapping)
    )
    if len(good) < whole:
        problems.append(f"metrics.jsonl is damaged: {whole - len(good)} of its {whole} lines are left out")
    return good


def _evaluation(values: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """The splits whose evaluation has what a report needs."""
    good = {
        split: entry
        for split, entry in values.items()
        if isinstance(entry, Mapping) and {"metrics", "classes", "confusion"} <= entry.keys() and _is_matrix(entry)
    }
    lost = sorted(values.keys() - good.keys())
    problems.extend(f"evaluation.json is damaged: its entry {split!r} is not whole" for split in lost)
    return good


def _is_matrix(entry: Mapping[str, Any]) -> bool:
    """Whether there is a row and a column of counts for each class."""
    classes, rows = entry["classes"], entry["confusion"]
    if not isinstance(classes, list) or not isinstance(rows, list) or len(classes) != len(rows):
        return False
    return all(isinstance(one, Mapping) and "name" in one for one in classes) and all(
        isinstance(row, list) and len(row) == len(rows) and all(isinstance(count, int) for count in row) for row in rows
    )


def _plan(values: Mapping[str, Any], problems: list[str]) -> Mapping[str, Any]:
    """The plan without entries that are not what they should be."""
    kinds = {"image_size": list, "classes": list, "reasons": dict, "dataset_root": str}
    wrong = [key for key, kind in kinds.items() if values.get(key) is not None and not isinstance(values[key], kind)]
    problems.extend(f"plan.json is damaged: {key} = {values[key]!r}" for key in wrong)
    return {key: value for key, value in values.items() if key not in wrong}


def _recipe(text: str, path: Path, problems: list[str]) -> Recipe | None:
    from bench.recipe import parse

    if not text:
        return None
    try:
        return parse(text, path=path)
    except BenchError as cause:
        problems.append(f"the recipe cannot be used here, so there are no images and no layers: {cause}")
        return None
