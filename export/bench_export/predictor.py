"""A model to predict with: decode, batch, run. Needs onnxruntime, numpy and Pillow, and no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from bench.errors import BenchError
from bench.images import BadImage, decode, no_size_warnings
from bench.kinds import PAIR_CLASSES
from bench_export.card import Card
from bench_export.prediction.numpy_steps import normalise, to_probabilities
from bench_export.session import Session, open_session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.parallel import Report

__all__ = ["Answers", "Predictor", "Source", "load"]

#: An encoded image: its file or its bytes; or a decoded one, uint8 H,W,C.
Source: TypeAlias = "Path | str | bytes | NDArray[np.uint8]"

#: The arrays of one image or pair, or why it cannot be used.
_Prepared: TypeAlias = "tuple[NDArray[np.uint8], ...] | str"

_GREY = 1


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What a model makes of n images or pairs: probabilities n,K (float32), guesses n, and the bad images.

    Of pairs the second column is the score. A bad image's row is NaN and its guess -1; `errors` says why, by position.
    """

    probabilities: NDArray[np.float32]
    guesses: NDArray[np.int64]
    errors: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Predictor:
    """An opened file with the card that says how to feed it."""

    session: Session
    card: Card

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in label order."""
        return self.card.classes

    @property
    def takes_pairs(self) -> bool:
        """Whether it compares two images."""
        return self.card.task == "verification"

    def prepare(self, source: Source) -> NDArray[np.uint8]:
        """One image as the model takes it, uint8 height,width,C. Raises BadImage, for a missing file too."""
        if isinstance(source, np.ndarray):
            return _fitted(source, self.card)
        if isinstance(source, str):
            source = Path(source)
        if not isinstance(source, Path | bytes):
            raise BadImage(f"neither a path nor bytes nor an array, but {type(source).__name__}")
        if isinstance(source, Path) and (source.is_dir() or not source.exists()):
            raise BadImage("a folder" if source.is_dir() else "there is no such file")
        return decode(source, self.card.preprocessing.decoding())

    def run(self, *batches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 N,H,W,C (of pairs two of these) -> probabilities N,K; of pairs 1 - score and score."""
        if not self.card.preprocessing.in_graph:
            normalised = (normalise(batch, self.card.preprocessing) for batch in batches)
            return to_probabilities(self.session.run(*normalised)[0], self.card.loss)
        outputs = self.session.run(*batches)
        if not self.takes_pairs:
            return outputs[0]  # type: ignore[return-value]  # the file says float32
        score = np.asarray(outputs[0], dtype=np.float32).reshape(-1)
        return np.stack([1 - score, score], axis=1)

    def guesses(self, probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
        """The class of each row; of pairs whether the score reaches the threshold."""
        if self.takes_pairs:
            return (probabilities[:, 1] >= np.float32(self.card.threshold or 0.0)).astype(np.int64)
        return np.asarray(probabilities.argmax(axis=1))

    def predict(self, images: Sequence[Any], *, batch_size: int = 32, report: Report | None = None) -> Answers:
        """Images (of pairs tuples of two), each a path, its bytes or uint8 H,W,C -> answers in their order.

        Decoding goes on in threads while the session runs. Bad images are listed in the answers, not raised. Raises
        TypeError for one image in place of a sequence.
        """
        _refuse_a_single_one(images)
        probabilities = np.full((len(images), len(self.classes)), np.nan, dtype=np.float32)
        guesses = np.full(len(images), -1, dtype=np.int64)
        errors: dict[int, str] = {}
        done = 0
        for part in self.stream(images, batch_size=batch_size):
            start, done = done, done + len(part.guesses)
            probabilities[start:done], guesses[start:done] = part.probabilities, part.guesses
            errors.update({start + position: reason for position, reason in part.errors.items()})
            if report is not None:
                report(done, len(images))
        return Answers(probabilities, guesses, errors)

    def stream(self, images: Sequence[Any], *, batch_size: int = 32) -> Iterator[Answers]:
        """The same as `predict`, a batch at a time; the next batch is decoded while the session runs."""
        starts = range(0, len(images), batch_size)
        if self._is_ready(images):
            batches = (images[start : start + batch_size] for start in starts)
            yield from (self._judged(self.run(_as_one_array(batch))) for batch in batches)
            return
        if _are_arrays(images):  # nothing to decode: handing them to threads would cost more than the rest
            yield from (self._answers([*map(self._prepared, images[s : s + batch_size])]) for s in starts)
            return
        with no_size_warnings(), ThreadPoolExecutor(thread_name_prefix="decode") as pool:
            ahead = pool.map(self._prepared, images[:batch_size])
            for start in starts:
                prepared = ahead
                ahead = pool.map(self._prepared, images[start + batch_size : start + 2 * batch_size])
                yield self._answers(list(prepared))

    def _is_ready(self, images: Any) -> bool:
        """Whether images are arrays that the model takes as they are, in one array or one by one."""
        size = (*self.card.preprocessing.size, self.card.preprocessing.channels)
        if self.takes_pairs:
            return False
        if isinstance(images, np.ndarray):
            return bool(images.dtype == np.uint8 and images.shape[1:] == size)
        return all(isinstance(one, np.ndarray) and one.shape == size and one.dtype == np.uint8 for one in images)

    def _answers(self, prepared: Sequence[_Prepared]) -> Answers:
        """One batch: the session on what can be used, NaN and the reason for the rest."""
        errors = {position: one for position, one in enumerate(prepared) if isinstance(one, str)}
        rows = [one for one in prepared if not isinstance(one, str)]
        judged = self._judged(self.run(*(np.stack(column) for column in zip(*rows, strict=True)))) if rows else None
        if judged is not None and not errors:
            return judged
        probabilities = np.full((len(prepared), len(self.classes)), np.nan, dtype=np.float32)
        guesses = np.full(len(prepared), -1, dtype=np.int64)
        if judged is not None:
            usable = [position for position in range(len(prepared)) if position not in errors]
            probabilities[usable], guesses[usable] = judged.probabilities, judged.guesses
            errors |= {usable[position]: reason for position, reason in judged.errors.items()}
        return Answers(probabilities, guesses, errors)

    def _judged(self, answered: NDArray[np.float32]) -> Answers:
        """The guesses of answers, none where they are no numbers."""
        guesses, finite = self.guesses(answered), np.isfinite(answered).all(axis=1)
        if finite.all():
            return Answers(answered, guesses)
        bad = np.flatnonzero(~finite)
        probabilities = answered.copy()
        probabilities[bad], guesses[bad] = np.nan, -1
        return Answers(probabilities, guesses, dict.fromkeys(bad.tolist(), "the model's answer is not a finite number"))

    def _prepared(self, image: Any) -> _Prepared:
        """The arrays of one image or pair, or why it cannot be used."""
        if not self.takes_pairs:
            return self._prepared_or_reason(image)
        if not isinstance(image, tuple | list) or len(image) != 2:  # noqa: PLR2004  # a pair
            return "no pair: this model takes tuples of two images"
        first, second = image
        sides = [self._prepared_or_reason(side) for side in (first, second)]
        reasons = [
            f"{name}: {one}" for name, one in zip(("first", "second"), sides, strict=True) if isinstance(one, str)
        ]
        return "; ".join(reasons) or tuple(one[0] for one in sides if not isinstance(one, str))

    def _prepared_or_reason(self, image: Source) -> _Prepared:
        try:
            return (self.prepare(image),)
        except BadImage as reason:
            return str(reason)
        except OSError as cause:
            return f"cannot be read: {cause.strerror or cause}"


def load(path: Path | str, *, card: Card | None = None, **options: Any) -> Predictor:
    """Open an exported file; `card` describes one that is not ours, `options` are those of `open_session`.

    Raises BenchError where the file does not say what it needs and answers.
    """
    session = open_session(Path(path), **options)
    known = card or session.card
    if known is None:
        raise BenchError(
            f"{path}: no file of bench export: it does not say its classes and its preprocessing",
            hint="bench predict takes both: --labels and --preprocess",
        )
    if known.task == "verification" and known.classes != PAIR_CLASSES:
        raise BenchError(f"{path}: its metadata are damaged: pairs have the classes {PAIR_CLASSES}")
    return Predictor(session, known)


def _fitted(pixels: NDArray[np.uint8], card: Card) -> NDArray[np.uint8]:
    """An array as if it were a file of these pixels."""
    from PIL import Image

    from bench.images import fit

    how = card.preprocessing
    if pixels.dtype != np.uint8 or pixels.ndim not in {2, 3} or (pixels.ndim == 3 and pixels.shape[2] not in {1, 3}):  # noqa: PLR2004
        raise BadImage(f"an array must be uint8 H,W or H,W,C with 1 or 3 channels, not {pixels.dtype} {pixels.shape}")
    if pixels.shape == (*how.size, how.channels):
        return pixels
    flat = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == _GREY else pixels  # noqa: PLR2004
    return fit(
        Image.fromarray(np.ascontiguousarray(flat)).convert("L" if how.channels == _GREY else "RGB"), how.decoding()
    )


def _as_one_array(images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 N,H,W,C; faster than np.stack, which looks at each array again."""
    if isinstance(images, np.ndarray):
        return images
    batch = np.empty((len(images), *images[0].shape), dtype=np.uint8)
    for position, image in enumerate(images):
        batch[position] = image
    return batch


def _refuse_a_single_one(images: Any) -> None:
    """A path's letters and an image's rows would pass for images."""
    single = isinstance(images, str | bytes | Path)
    if single or (isinstance(images, np.ndarray) and images.ndim == 3 and images.shape[2] in {1, 3}):  # noqa: PLR2004
        raise TypeError("a sequence of images is expected, such as a list of one")


def _are_arrays(batch: Sequence[Any]) -> bool:
    """Whether nothing has to be decoded."""
    parts = (part for one in batch for part in (one if isinstance(one, tuple) else (one,)))
    return all(isinstance(part, np.ndarray) for part in parts)
