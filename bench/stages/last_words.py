"""What the processes of a run learn of each other's end: why one failed, or that it has gone."""

from __future__ import annotations

import json
import platform
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # torch lists it in its documents only

from bench.errors import BenchError, Interrupted
from bench.stages.memory import is_out_of_memory

if TYPE_CHECKING:
    from types import FrameType

    from bench.launch import Launch

__all__ = ["LastWords", "Left"]

#: How long to wait for the word of a process that has gone.
_LAST_WORD_S = 2.0
_LAST_WORD, _FIRSTS_WORD = "last word", "last word of the first"

#: What gloo and nccl say where the other side has gone.
_GONE = re.compile(r"gloo|NCCL|Connection (closed|reset)|Broken pipe|TCPStore", re.IGNORECASE)


class Left(BenchError):
    """Another process of the run has failed or gone, and says why where it could."""

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = BenchError.exit_code) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class LastWords:
    """A process's view of the store where each leaves its last words: torchrun's, or the first process's."""

    launch: Launch
    store: PrefixStore

    def leave(self, error: Exception) -> None:
        """Tell the others why this process ends, unless it only follows them."""
        if isinstance(error, Left | Interrupted):
            return
        word = {"rank": self.launch.rank, "host": platform.node(), "error": str(error) or type(error).__name__}
        word |= {"hint": getattr(error, "hint", None), "exit_code": getattr(error, "exit_code", BenchError.exit_code)}
        with suppress(RuntimeError):  # the store may be the first process's, and have gone with it
            self.store.compare_set(_LAST_WORD, "", json.dumps(word))
            if self.launch.rank == 0:
                self.store.set(_FIRSTS_WORD, str(error))

    def said_by_first(self, error: Exception) -> bool:
        """Whether the first process ends with this very error, and so tells the person."""
        return self._word(_FIRSTS_WORD, wait_s=_LAST_WORD_S) == str(error)

    def explain(self, error: Exception) -> Exception:
        """An error that only says that a connection was lost becomes what the process at its end had to say."""
        if self.launch.rank == 0 and threading.current_thread() is threading.main_thread():
            # torchrun sends it because of the one that has ended; that must be recorded first.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if is_out_of_memory(error):
            hint = "lower train.batch_size and raise train.accumulate, or start more processes"
            return BenchError(f"process {self.launch.rank} of {self.launch.world_size}: out of memory", hint=hint)
        if not isinstance(error, RuntimeError) or not _GONE.search(str(error)):
            return error
        return self._left(wait_s=_LAST_WORD_S) or Left(
            f"another of the {self.launch.world_size} processes has gone without a word",
            hint="was it killed, or out of memory? Go on with the same command and --resume",
        )

    @contextmanager
    def heeding_torchrun(self) -> Iterator[None]:
        """While entered, SIGTERM raises what another process ended of, or Interrupted."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(_number: int, _frame: FrameType | None) -> None:
            raise self._left(wait_s=0.0) or Interrupted("stopped by the system", hint="go on with --resume")

        before = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _left(self, *, wait_s: float) -> Left | None:
        """What another process had to say at its end."""
        word = json.loads(self._word(_LAST_WORD, wait_s=wait_s) or "{}")
        if not word:
            return None
        who = f"process {word['rank']} of {self.launch.world_size} on {word['host']} failed"
        return Left(f"{who}: {word['error']}", hint=word["hint"], exit_code=word["exit_code"])

    def _word(self, key: str, *, wait_s: float) -> str | None:
        end = time.monotonic() + wait_s
        with suppress(RuntimeError):
            while not self.store.check([key]):
                if time.monotonic() > end:
                    return None
                time.sleep(0.05)
            return str(self.store.get(key).decode())
        return None
