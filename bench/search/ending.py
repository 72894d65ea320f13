"""How a search ends, and what it then has to say."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal, TypeAlias

from bench.errors import BenchError, Interrupted
from bench.search.claim import counted

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from bench.search.objectives import Constraint

__all__ = ["End", "common_cause", "failing", "judge"]

#: Why a worker, or a whole search, came to its end.
End: TypeAlias = Literal["complete", "timeout", "failing", "stopped"]

#: So many failures in a row are no accident of single trials any more.
_TOO_MANY_IN_A_ROW = 5


def failing(trials: Sequence[FrozenTrial], since: datetime) -> bool:
    """Whether the latest trials that ended after `since` have all failed, several in a row."""
    return len(_latest_failures(trials, since)) >= _TOO_MANY_IN_A_ROW


def common_cause(failed: Sequence[FrozenTrial]) -> str:
    """What most of the failed trials died of, with their share; causes that differ in numbers only are the same one."""
    texts = [str(trial.user_attrs.get("error") or "unknown") for trial in failed]
    kind, count = Counter(map(_without_numbers, texts)).most_common(1)[0]
    cause = next(text for text in texts if _without_numbers(text) == kind)
    return cause if count == len(failed) else f"{count} of them with: {cause}"


def judge(study: Study, end: End, *, since: datetime, total: int, constraints: Sequence[Constraint] = ()) -> None:
    """Raise what such an end has to say: Interrupted, or BenchError where no trial is of any use; else nothing."""
    from bench.search.front import usable

    trials = counted(study)
    finished = [trial for trial in trials if trial.state.is_finished()]
    if end == "stopped":
        raise Interrupted(
            f"search {study.study_name} stopped after {len(finished)} of {total} trials",
            hint="the same command goes on; a trial that was running goes on from its checkpoint",
        )
    failed = [trial for trial in finished if trial.state.name == "FAIL"]
    if end == "failing" or (failed and len(failed) == len(finished)):
        latest = _latest_failures(trials, since) or failed
        many = "the only trial" if len(latest) == 1 else f"the latest {len(latest)} trials"
        again = "repeat the command" if len(finished) < total else "ask for more --trials"
        raise BenchError(
            f"search {study.study_name}: {many} failed: {common_cause(latest)}",
            hint=f"correct the cause, then {again}; --new starts afresh",
        )
    if finished and not usable(study):
        _nothing_usable(study, constraints)


def _nothing_usable(study: Study, constraints: Sequence[Constraint]) -> None:
    from bench.search.front import nearest
    from bench.search.wording import setting

    trial = nearest(study)
    if trial is None:
        raise BenchError(
            f"search {study.study_name}: no trial has come to its end: all were pruned, or have failed",
            hint="more trials (--trials), or a milder pruner (search.pruner)",
        )
    limits = {str(constraint): constraint for constraint in constraints}
    missed = [_missed(name, value, limits.get(name)) for name, value in trial.constraints.items() if value > 0]
    values = ", ".join(f"{name} = {setting(value)}" for name, value in trial.params.items())
    raise BenchError(
        f"search {study.study_name}: no trial satisfies its constraints; the nearest is trial {trial.number} "
        f"({'; '.join(missed)}) with {values}",
        hint="loosen search.constraints, or widen search.space towards cheaper models, and begin again with --new",
    )


def _without_numbers(text: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "0", text)


def _missed(name: str, excess: float, constraint: Constraint | None) -> str:
    """The constraint and the value that was measured, from what it exceeds the limit by."""
    if constraint is None:
        return f"{name}: missed by {excess:.4g}"
    value = constraint.limit + (excess if constraint.sign[0] == "<" else -excess)
    return f"{constraint}: {value:.6g}"


def _latest_failures(trials: Sequence[FrozenTrial], since: datetime) -> list[FrozenTrial]:
    ended = [trial for trial in trials if trial.datetime_complete is not None and trial.datetime_complete >= since]
    found: list[FrozenTrial] = []
    for trial in sorted(ended, key=lambda trial: str(trial.datetime_complete), reverse=True):
        if trial.state.name != "FAIL":
            break
        found.append(trial)
    return found
