"""How someone who missed messages of a node asks for them again."""

import json


def write_resend(epoch: str, first: int) -> dict[str, object]:
    """Return the message that asks for all from number ``first`` on."""
    return {"epoch": epoch, "first": first}


def read_resend(payload: bytes) -> tuple[str, int] | None:
    """Return epoch and number; None for what is no such message."""
    try:
        body = json.loads(payload)
        return str(body["epoch"]), max(int(body["first"]), 0)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
