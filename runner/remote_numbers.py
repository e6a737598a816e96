"""What a camera node says of itself, and the numbers by which its messages are counted."""

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

ASK_AGAIN = 64  # out of turn, before a question that may be lost is put again


def read_status(payload: bytes) -> dict[str, Any]:
    """Return what a node says of itself; nothing where that is unreadable."""
    with suppress(ValueError, RecursionError):
        body = json.loads(payload)
        if isinstance(body, dict):
            return body
    return {}


@dataclass(slots=True, kw_only=True)
class Numbers:
    """The numbers of one node: which comes next, and what was asked for."""

    epoch: str = ""
    next: int = 0
    asked_for: int = -1
    waited: int = 0

    def lacks(self, status: dict[str, Any]) -> int | None:
        """Return the number from which messages lack, by what the node says of itself."""
        if not self.epoch or status.get("epoch") != self.epoch:
            return None
        return self.next if int(status["next"]) > self.next else None

    def may_ask(self) -> bool:
        """Tell whether to ask for the next: once, and again when nothing comes of it."""
        self.waited += 1
        if self.asked_for == self.next and self.waited < ASK_AGAIN:
            return False
        self.asked_for, self.waited = self.next, 0
        return True
