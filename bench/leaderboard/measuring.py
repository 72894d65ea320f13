"""From a recipe's chosen runs to an entry of the leaderboard."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.group import summarise
from bench.leaderboard.facts import Answered, Entry, answered_of

if TYPE_CHECKING:
    from bench.comparison.answers import Reader
    from bench.leaderboard.candidates import Candidate, Choice

__all__ = ["hardware", "measure", "read_answers"]

_TOLD_VERSIONS = ("visionbench", "torch")


def measure(choice: Choice, answers: Answered | str) -> Entry:
    """An entry, from run.json and what `read_answers` found."""
    candidate = choice.candidate
    infos = candidate.infos
    dataset, fingerprint, num_test = candidate.dataset
    accuracy, low, high, error = _accuracy(candidate)
    environment = infos[-1].get("environment") or {}
    return Entry(
        recipe=candidate.recipe,
        recipe_digest=str(infos[0].get("recipe_digest")),
        dataset=dataset,
        fingerprint=fingerprint,
        num_test=num_test,
        pairs="test_eer" in infos[0]["metrics"],
        kind=candidate.kind,
        num_runs=len(infos),
        accuracy=accuracy,
        low=low,
        high=high,
        standard_error=error,
        published=candidate.published,
        macro_f1=_mean(infos, "test_macro_f1"),
        auroc=_mean(infos, "test_auroc"),
        parameters=round(_mean(infos, "parameters") or 0),
        train_seconds=round(sum(_mean(infos, name) or 0.0 for name in ("train_seconds", "fit_seconds")), 2),
        hardware=hardware(environment.get("machine") or {}),
        versions={k: v for k, v in (environment.get("versions") or {}).items() if k in _TOLD_VERSIONS},
        date=str(infos[-1].get("created") or "")[:10],
        chosen=choice.reason,
        answered=answers if isinstance(answers, Answered) else None,
        unfinished=candidate.planned - len(infos),
        fault=answers if isinstance(answers, str) else "",
    )


def read_answers(candidate: Candidate, reader: Reader) -> Answered | str:
    """What the candidate answered, or why that is not known."""
    from bench.comparison.answers import evidence

    try:
        return answered_of(evidence(candidate.recorded, reader, kind=candidate.kind, prefix="test"))
    except BenchError as error:
        return str(error).partition(": ")[0]  # what follows may name this machine's folders


def hardware(machine: Mapping[str, Any]) -> str:
    """The GPU, or the processor and its cores; no names of hosts."""
    if machine.get("gpu"):
        return str(machine["gpu"])
    name = str(machine.get("cpu") or "")
    for noise in ("(R)", "(TM)", "(r)", "(tm)"):
        name = name.replace(noise, "")
    cores = machine.get("cores")
    return ", ".join(
        filter(None, [" ".join(name.split()), f"{cores} core{'s' if cores != 1 else ''}" if cores else ""])
    )


def _accuracy(candidate: Candidate) -> tuple[float, float | None, float | None, float | None]:
    """(accuracy, low, high, standard error): of one run Wilson's interval, of several as bench.group has it."""
    if candidate.kind == "run":
        metrics = candidate.infos[0]["metrics"]
        return (
            float(metrics["test_accuracy"]),
            metrics.get("test_accuracy_low"),
            metrics.get("test_accuracy_high"),
            None,
        )
    key = "test_accuracy"
    parts = [{**info, "metrics": {key: info["metrics"][key]}} for info in candidate.infos]
    found = summarise(parts)["test"]
    return found["mean"], found.get("low"), found.get("high"), found.get("standard_error")


def _mean(infos: tuple[Mapping[str, Any], ...], name: str) -> float | None:
    values = [info["metrics"].get(name) for info in infos]
    known = [float(value) for value in values if isinstance(value, int | float)]
    return math.fsum(known) / len(known) if len(known) == len(values) else None
