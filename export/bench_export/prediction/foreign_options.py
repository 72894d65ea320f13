"""--labels and --preprocess, which say what a file that is not ours leaves out."""

from __future__ import annotations

import math
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.errors import RecipeError
from bench.images import FILTERS
from bench.registry import near_miss

__all__ = ["KEYS", "as_size", "by_channel", "parse_labels", "parse_preprocess", "wrong_values"]

#: What each key of --preprocess may be.
KEYS = {
    "size": "height and width in pixels: 224, or 240x320",
    "resize": "squash (default), crop or pad",
    "filter": f"{', '.join(FILTERS)}; default bilinear",
    "scale": "what pixels are divided by first; default 255",
    "mean": "subtracted after that: one value, or one a channel",
    "std": "divided by after that: one value, or one a channel",
    "channels": "1 or 3",
    "order": "rgb (default) or bgr",
    "layout": "nchw or nhwc",
    "output": "logits or probabilities",
}
_LARGEST_SIDE = 8192
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "resize": ("squash", "crop", "pad"),
    "filter": tuple(FILTERS),
    "order": ("rgb", "bgr"),
    "layout": ("nchw", "nhwc"),
    "output": ("logits", "probabilities"),
}


def parse_preprocess(text: str) -> dict[str, Any]:
    """A TOML file, or KEY=VALUE separated by spaces -> the values as they were given."""
    path = Path(text)
    if path.suffix == ".toml" or _is_file(path):
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as cause:
            raise RecipeError(f"--preprocess {text}: {cause.strerror}") from cause
        except ValueError as cause:
            raise RecipeError(f"--preprocess {text}: no TOML: {cause}") from cause
    pairs = [part.partition("=") for part in text.split()]
    bad = [key for key, equals, value in pairs if not equals or not value]
    if bad:
        raise RecipeError(
            f"--preprocess: {bad[0]!r} is not KEY=VALUE", hint='"size=224 mean=0.5 std=0.5 output=logits"'
        )
    return {key: value for key, _, value in pairs}


def wrong_values(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with the values, in a line each."""
    problems = [f"--preprocess {key}: no such key{near_miss(key, KEYS)}" for key in values if key not in KEYS]
    for key, allowed in _CHOICES.items():
        if key in values and values[key] not in allowed:
            problems.append(f"--preprocess {key}={values[key]}: {KEYS[key]}")
    checks: Mapping[str, Callable[[Any], Any]] = {
        "size": as_size, "scale": lambda value: 1 / _numbers(float(value))[0], "mean": _numbers,
        "std": lambda value: [1 / one for one in _numbers(value)], "channels": lambda value: {1: 1, 3: 3}[int(value)],
    }  # fmt: skip
    for key, check in checks.items():
        if key in values:
            try:
                check(values[key])
            except (ValueError, TypeError, KeyError, ZeroDivisionError):
                problems.append(f"--preprocess {key}={values[key]}: {KEYS[key]}")
    return problems


def parse_labels(text: str) -> tuple[str, ...]:
    """Class names of a file (one a line) or a,b,c. Raises RecipeError where they are no two names."""
    path = Path(text)
    if _is_file(path):
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as cause:
            raise RecipeError(f"--labels {text}: {cause.strerror}") from cause
        names = tuple(line.strip() for line in lines if line.strip())
    elif "," in text:
        names = tuple(name.strip() for name in text.split(","))
    else:
        raise RecipeError(f"--labels {text}: there is no such file", hint="a file of one name a line, or a,b,c")
    if len(names) < 2 or not all(names):  # noqa: PLR2004
        raise RecipeError(f"--labels {text}: at least two names, none of them empty")
    return tuple(_numbered(names))


def _numbers(value: Any) -> list[float]:
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    numbers = [float(part) for part in parts]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(value)
    return numbers


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a list of names that is too long to be one
        return False


def by_channel(value: Any, channels: int, key: str) -> tuple[float, ...]:
    """One value for all channels, or one a channel."""
    numbers = _numbers(value)
    if len(numbers) not in {1, channels}:
        raise RecipeError(f"--preprocess {key}: {len(numbers)} values for {channels} channels")
    return tuple(numbers * channels if len(numbers) == 1 else numbers)


def as_size(value: Any) -> tuple[int, int]:
    """(height, width) of 224, "224", "240x320", "240,320" or [240, 320]."""
    parts = (
        value.replace("x", ",").split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    )
    sides = [int(part) for part in parts]
    if len(sides) not in {1, 2} or not all(1 <= side <= _LARGEST_SIDE for side in sides):
        raise ValueError(value)
    return sides[0], sides[-1]


def _numbered(names: Sequence[str]) -> Iterator[str]:
    """Names that differ: ImageNet has two classes called "crane", and the second becomes "crane (2)"."""
    seen: Counter[str] = Counter()
    for name in names:
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name} ({seen[name]})"
