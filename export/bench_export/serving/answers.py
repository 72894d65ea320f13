"""Answers as JSON, put together by hand: at thousands of requests a second, generic serialisation is what costs."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from bench_export.card import Card
from bench_export.serving.batching import Answer
from bench_export.serving.uploads import Upload

__all__ = ["AnswerWriter"]


class AnswerWriter:
    """Turns the answers to a request into its body."""

    def __init__(self, card: Card, name: str) -> None:
        self._card = card
        model = {"name": name, "run": card.run, "precision": card.precision, "task": card.task}
        self._model = json.dumps(model)
        self._labels = [json.dumps(label) for label in card.classes]
        self._starts = [
            f'{{"label": {label}, "index": {index}, "probability": ' for index, label in enumerate(self._labels)
        ]

    def body(
        self, uploads: Sequence[tuple[Upload, ...]], answers: Sequence[Answer], *, top: int, total_s: float
    ) -> bytes:
        """{"model", "images" or "pairs", "timing_ms"}; `top` classes an image."""
        pairs = self._card.task == "verification"
        one = self._pair if pairs else self._image
        shown = ", ".join(one(files, answer, top) for files, answer in zip(uploads, answers, strict=True))
        times = (
            f'{{"total": {total_s * 1e3:.3f}'
            f', "decode": {max(answer.decode_s for answer in answers) * 1e3:.3f}'
            f', "wait": {max(answer.wait_s for answer in answers) * 1e3:.3f}'
            f', "compute": {max(answer.compute_s for answer in answers) * 1e3:.3f}}}'
        )
        name = "pairs" if pairs else "images"
        return f'{{"model": {self._model}, "{name}": [{shown}], "timing_ms": {times}}}'.encode()

    def _image(self, files: tuple[Upload, ...], answer: Answer, top: int) -> str:
        row = _row(answer)
        order = np.argsort(-row, kind="stable")[:top].tolist()
        values = row.tolist()
        rows = ", ".join(f"{self._starts[index]}{values[index]:.6g}}}" for index in order)
        return (
            f'{{"file": {json.dumps(files[0].name)}, "label": {self._labels[answer.guess]}, "index": {answer.guess}'
            f', "probabilities": [{rows}]}}'
        )

    def _pair(self, files: tuple[Upload, ...], answer: Answer, _top: int) -> str:
        return (
            f'{{"first": {json.dumps(files[0].name)}, "second": {json.dumps(files[1].name)}'
            f', "score": {float(_row(answer)[1]):.6g}, "decision": {self._labels[answer.guess]}'
            f', "index": {answer.guess}, "threshold": {self._card.threshold or 0.0:.6g}}}'
        )


def _row(answer: Answer) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    assert answer.probabilities is not None  # noqa: S101  # bad ones never come here
    return answer.probabilities
