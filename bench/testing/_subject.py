"""What every check works on: a plugin with its options, and a world without a network and with a fixed chance."""

from __future__ import annotations

import contextlib
import random
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError, Unsupported
from bench.schema import options_model, validate

if TYPE_CHECKING:
    from bench.registry import Plugin

__all__ = ["CheckFailed", "Subject", "expect", "offline", "seeded"]


class CheckFailed(BenchError, AssertionError):
    """A plugin breaks a promise; the message says which, and what to do."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A plugin under check, with the options and the dataset's root that the person gave."""

    plugin: Plugin
    given: Mapping[str, Any]
    root: Path | None

    def load(self) -> Callable[..., Any]:
        """Import the plugin."""
        return self.plugin.load()

    def options(self, **preferred: Any) -> dict[str, Any]:
        """The options to call it with: its example's, those preferred where its signature has them, those given."""
        with tempfile.TemporaryDirectory() as folder:
            return self.options_in(Path(folder), **preferred)

    def options_in(self, folder: Path, **preferred: Any) -> dict[str, Any]:
        """The same, where the example writes into a folder that stays."""
        loaded = self.load()
        model = options_model(self.plugin.kind, loaded)
        example = getattr(loaded, "example", None)
        table = {
            **(example(folder) if callable(example) and self.root is None else {}),
            **{name: value for name, value in preferred.items() if name in model.model_fields},
            **self.given,
        }
        required = [name for name, info in model.model_fields.items() if info.is_required() and name not in table]
        if required:
            raise Unsupported(
                f"no value for {', '.join(required)}, which has no default: give the plugin an `example` (see "
                "bench.testing), or hand over options"
            )
        values, problems = validate(model, table, self.plugin.name)
        expect(not problems, f"the example's or given options do not fit the signature: {'; '.join(problems)}")
        return values


def expect(kept: bool, message: str) -> None:  # noqa: FBT001 - reads like assert
    """Raise CheckFailed with a message for the plugin's author."""
    if not kept:
        raise CheckFailed(message)


@contextlib.contextmanager
def offline() -> Iterator[list[str]]:
    """No network: whoever asks for it gets an OSError, and is listed."""
    from unittest import mock

    asked: list[str] = []

    def refuse(*arguments: Any, **_: Any) -> Any:
        asked.append(str(next((value for value in arguments if not isinstance(value, socket.socket)), "")))
        raise OSError("there is no network during a conformance check")

    with contextlib.ExitStack() as patches:
        for owner, name in (
            (socket, "create_connection"),
            (socket, "getaddrinfo"),
            (socket.socket, "connect"),
            (socket.socket, "connect_ex"),
        ):
            patches.enter_context(mock.patch.object(owner, name, refuse))
        yield asked


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's, numpy's and Python's global generators seeded, as a run does it; afterwards as they were."""
    import torch

    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global generator is meant
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the same
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002 - the same
