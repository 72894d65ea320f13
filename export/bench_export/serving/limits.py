"""What a request may ask for, and how one is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass

__all__ = ["Limits", "Refusal"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes beyond which a request is refused.

    `max_megabytes` is that of a whole body, `max_megapixels` that of one image (as its header says, before anything is
    decoded). `max_images` counts the images of one request, `max_waiting` those of all requests under way.
    """

    max_megabytes: float = 32.0
    max_megapixels: float = 50.0
    max_images: int = 64
    max_waiting: int = 256
    body_timeout_s: float = 30.0

    @property
    def max_bytes(self) -> int:
        """The largest body."""
        return int(self.max_megabytes * 1e6)


class Refusal(Exception):  # not every refusal is the client's error
    """A request that is not answered as asked: HTTP status, a code for programs, a reason and a hint for people."""

    def __init__(
        self, status: int, code: str, reason: str, *, hint: str = "", headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(reason)
        self.status, self.code, self.reason, self.hint, self.headers = status, code, reason, hint, headers

    def body(self) -> bytes:
        """{"error": {"code", "reason", "hint"}}."""
        return json.dumps({"error": {"code": self.code, "reason": self.reason, "hint": self.hint}}).encode()
