"""What is measured: a file in onnxruntime, or a run's trained model in torch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from bench import record
from bench.errors import BenchError, RecipeError
from bench.registry import near_miss
from bench.run_names import find
from bench_export.card import Card, read_card
from bench_export.session import check_file

__all__ = ["KINDS", "Candidate", "find_candidates"]

Device: TypeAlias = Literal["auto", "cpu", "cuda"]

#: What --against takes -> the precision of the file, None for torch.
KINDS: dict[str, str | None] = {
    "torch": None,
    "torch-compile": None,
    "ort": "fp32",
    "ort-int8": "int8",
    "ort-fp16": "fp16",
}

#: Where an export lies in the run's folder.
_FILES = {"fp32": "model.onnx", "int8": "model.int8.onnx", "fp16": "model.fp16.onnx"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One thing to measure. `path` is the ONNX file, or the run's folder for torch; `card` is the file's.

    `threads` None leaves the number to the runtime, and `tuning` None to the card.
    """

    name: str
    kind: str
    path: Path
    card: Card | None = None
    threads: int | None = None
    device: Device = "auto"
    tuning: dict[str, Any] | None = None

    @property
    def runtime(self) -> str:
        """What it runs in: "torch", "torch-compile" or "ort"."""
        return "ort" if self.kind.startswith("ort") else self.kind

    @property
    def precision(self) -> str:
        """The file's own word for it; torch computes in fp32."""
        return self.card.precision if self.card and self.runtime == "ort" else "fp32"

    @property
    def file(self) -> Path:
        """The file whose size counts."""
        return self.path if self.runtime == "ort" else self.path / "model.safetensors"

    def as_json(self) -> dict[str, Any]:
        """What a candidate's own process needs to know."""
        values = asdict(replace(self, card=None))
        return {**values, "path": str(self.path), "runtime": self.runtime}


def find_candidates(
    targets: Sequence[str], against: Sequence[str], *, threads: int | None = None, device: Device = "auto"
) -> tuple[list[Candidate], record.Run | None]:
    """(the candidates of files and runs, the run that they come from where it is known).

    A file is a candidate itself, and `against` adds others of its run; of a run the named kinds are taken, or all its
    exports. Raises RecipeError for an unknown kind, and BenchError for what is missing, with the command that makes it.
    """
    for kind in against:
        if kind not in KINDS:
            raise RecipeError(
                f"--against {kind}: unknown{near_miss(kind, KINDS)}", hint=f"known are {', '.join(KINDS)}"
            )
    found: list[Candidate] = []
    runs: list[record.Run] = []
    short = _short(targets)
    for target in targets:
        prefix = f"{short[target]}:" if len(targets) > 1 else ""
        of_target, run = _of_file(Path(target), against) if target.endswith(".onnx") else _of_run(target, against)
        runs += [run] if run else []
        found += [replace(one, name=prefix + one.name, threads=threads, device=device) for one in of_target]
    _check_alike(found, runs)
    _check_device(found, device)
    return found, runs[0] if runs else None


def _of_file(path: Path, against: Sequence[str]) -> tuple[list[Candidate], record.Run | None]:
    own = _on_file(path)
    assert own.card is not None  # noqa: S101  # _on_file has refused a file without one
    wanted = [kind for kind in dict.fromkeys(against) if kind != own.kind]
    run = _run_of(own.card, path)
    others = []
    for kind in wanted:
        precision = KINDS[kind]
        beside = path.parent / _FILES[precision] if precision else None
        if beside is not None and beside.is_file() and (other := _on_file(beside)).card.run == own.card.run:  # type: ignore[union-attr]  # see above
            others.append(other)
        elif run is None:
            raise BenchError(
                f"--against {kind} needs the run {own.card.run or '(unnamed)'} that {path} was exported from, which is "
                f"not in {record.runs_folder()}",
                hint="set BENCH_RUNS to the folder of the runs, or leave it out of --against",
            )
        else:
            others.append(_in_run(run, kind))
    return [own, *others], run


def _of_run(name: str, against: Sequence[str]) -> tuple[list[Candidate], record.Run]:
    run = find(name)
    if against:
        return [_in_run(run, kind) for kind in dict.fromkeys(against)], run
    there = [kind for kind, precision in KINDS.items() if precision and _export(run, precision).is_file()]
    if not there:
        raise _not_exported(run, "fp32")
    return [_in_run(run, kind) for kind in there], run


def _in_run(run: record.Run, kind: str) -> Candidate:
    precision = KINDS[kind]
    if precision is None:
        if not (run.folder / "model.safetensors").is_file():
            raise BenchError(f"run {run.name} has no finished model", hint="bench run RECIPE --resume")
        return Candidate(kind, kind, run.folder)
    path = _export(run, precision)
    if not path.is_file():
        raise _not_exported(run, precision)
    return replace(_on_file(path), name=kind, kind=kind)


def _on_file(path: Path) -> Candidate:
    check_file(path)
    card = read_card(path)
    if card is None:
        raise BenchError(
            f"{path}: no file of bench export: it does not say its preprocessing, so nothing can be timed end to end",
            hint="bench export --onnx writes files that do",
        )
    kind = next((kind for kind, precision in KINDS.items() if precision == card.precision), "ort")
    return Candidate(kind, kind, path.resolve(), card)


def _export(run: record.Run, precision: str) -> Path:
    return run.folder / "export" / _FILES[precision]


def _not_exported(run: record.Run, precision: str) -> BenchError:
    rejected = _export(run, precision).with_suffix(".rejected.onnx")
    why = "missed the gate" if rejected.is_file() else "was not exported"
    return BenchError(
        f"run {run.name}: its {precision} model {why}: there is no {_export(run, precision)}",
        hint=f"bench export {run.name} --onnx --precision {precision}",
    )


def _run_of(card: Card, path: Path) -> record.Run | None:
    """The run of a file: the folder that it lies in, or the one of its name."""
    if (path.resolve().parent.parent / "run.json").is_file():
        return record.Run(path.resolve().parent.parent)
    return next((run for run in record.list_runs() if card.run and run.name == card.run), None)


def _check_alike(found: Sequence[Candidate], runs: Sequence[record.Run]) -> None:
    """Every candidate gets the same samples, so all must compare pairs, or none; and names must differ."""
    tasks = {one.card.task for one in found if one.card}
    plans = [
        json.loads(path.read_text(encoding="utf-8")) for run in runs if (path := run.folder / "plan.json").is_file()
    ]
    tasks |= {plan["task"] for plan in plans if plan.get("task")}
    if len(tasks) > 1:
        raise RecipeError("models of pairs and of single images cannot be measured on the same samples")
    names = [one.name for one in found]
    if len(set(names)) < len(names):
        raise RecipeError(f"two candidates have one name: {', '.join(names)}", hint="name each of them once")


def _check_device(found: Sequence[Candidate], device: Device) -> None:
    """Torch is measured on the CPU, so beside files on a GPU it would be no rival, and nobody would see it."""
    if device == "cuda" and (names := [one.name for one in found if one.runtime != "ort"]):
        raise RecipeError(
            f"--device cuda: {', '.join(names)} would run on the CPU", hint="--device cpu, or leave it out of --against"
        )


def _short(targets: Sequence[str]) -> dict[str, str]:
    """A short name of each target; files are called by their folder, or their run's, where their names do not differ."""
    paths = {target: Path(target) for target in targets}
    names = {target: path.stem if path.suffix == ".onnx" else path.name for target, path in paths.items()}
    counts = Counter(names.values())
    for target, path in paths.items():
        if counts[names[target]] > 1:
            folder = path.resolve().parent
            names[target] = f"{folder.parent.name if folder.name == 'export' else folder.name}/{path.stem}"
    return names
