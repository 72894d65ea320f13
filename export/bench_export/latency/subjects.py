"""An opened candidate, inside its own process: its systems for both measures, and what opening it took and said."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from bench.images import Decoding, decode
from bench_export.latency.loadgen import System

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench_export.session import Session

__all__ = ["MEASURES", "Opened", "open_subject"]

#: What is timed: from encoded bytes in host memory to the answer; from prepared arrays to the answer on the host.
MEASURES = ("compute", "end_to_end")

#: Arrays uint8 N,h,w,C, one for an image and two for a pair -> the answers, on the host.
Forward: TypeAlias = Callable[..., object]


@dataclass(frozen=True, slots=True)
class Opened:
    """Systems by measure, and the facts for the record."""

    systems: dict[str, System]
    facts: dict[str, Any]


def open_subject(candidate: Mapping[str, Any], encoded: Sequence[tuple[bytes, ...]]) -> Opened:
    """Open a candidate (`Candidate.as_json`) on a library of samples, and answer the first of them."""
    start = time.perf_counter()
    opener = _open_ort if candidate["runtime"] == "ort" else _open_torch
    how, forward, session, facts = opener(candidate)
    opened = time.perf_counter()
    first = tuple(decode(part, how)[None] for part in encoded[0])
    decoded = time.perf_counter()
    forward(*first)
    ran = time.perf_counter()
    facts |= {"session_ms": 1e3 * (opened - start), "first_run_ms": 1e3 * (ran - decoded)}
    prepared = [tuple(decode(part, how)[None] for part in sample) for sample in encoded]
    compute = System(_compute_one(prepared, forward, session), _compute_many(prepared, forward), len(encoded))
    whole = System(_whole_one(encoded, how, forward), _whole_many(encoded, how, forward), len(encoded))
    return Opened({"compute": compute, "end_to_end": whole}, facts)


def _open_ort(candidate: Mapping[str, Any]) -> tuple[Decoding, Forward, Session | None, dict[str, Any]]:
    from bench_export.predictor import load

    predictor = load(
        Path(candidate["path"]),
        device=candidate["device"],
        threads=candidate["threads"],
        tuning=candidate["tuning"],
        profile_nodes=True,
    )
    session = predictor.session
    facts = {
        "providers_asked": list(session.providers_asked),
        "providers_used": list(session.providers_used),
        "nodes": session.nodes(),
        "threads": session.threads,
        "tuning": dict(session.tuning) or None,
    }
    # A file with all steps inside is fed directly; others are normalised in Python, which then counts as compute.
    inside = predictor.card.preprocessing.in_graph
    forward: Forward = session.run if inside else predictor.run
    return predictor.card.preprocessing.decoding(), forward, session if inside else None, facts


def _open_torch(candidate: Mapping[str, Any]) -> tuple[Decoding, Forward, None, dict[str, Any]]:
    import torch

    from bench.stages.restore import restore

    if candidate["threads"]:
        torch.set_num_threads(candidate["threads"])
    restored = restore(Path(candidate["path"]))
    if candidate["runtime"] == "torch-compile":
        restored.model.compile()
    data = restored.recipe.data
    how = Decoding(restored.spec.image_size, restored.spec.channels, data.resize, data.filter, data.max_megapixels)
    facts = {
        "providers_asked": ["torch cpu"],
        "providers_used": ["torch cpu"],
        "nodes": {"torch cpu": sum(1 for module in restored.model.modules() if not list(module.children()))},
        "threads": torch.get_num_threads(),
        "tuning": None,
    }
    return how, restored.predict, None, facts


def _compute_one(
    prepared: Sequence[tuple[NDArray[np.uint8], ...]], forward: Forward, session: Session | None
) -> Callable[[int], object]:
    if session is not None and not session.tuning.get("io_binding"):
        run, names = session.inference.run, list(session.outputs)
        feeds = [dict(zip(session.inputs, arrays, strict=True)) for arrays in prepared]
        return lambda index: run(names, feeds[index])
    return lambda index: forward(*prepared[index])


def _compute_many(
    prepared: Sequence[tuple[NDArray[np.uint8], ...]], forward: Forward
) -> Callable[[Sequence[int]], object]:
    return lambda indices: forward(*map(np.concatenate, zip(*(prepared[index] for index in indices), strict=True)))


def _whole_one(encoded: Sequence[tuple[bytes, ...]], how: Decoding, forward: Forward) -> Callable[[int], object]:
    return lambda index: forward(*(decode(part, how)[None] for part in encoded[index]))


def _whole_many(
    encoded: Sequence[tuple[bytes, ...]], how: Decoding, forward: Forward
) -> Callable[[Sequence[int]], object]:
    def run(indices: Sequence[int]) -> object:
        rows = [[decode(part, how) for part in encoded[index]] for index in indices]
        return forward(*map(np.stack, zip(*rows, strict=True)))

    return run
