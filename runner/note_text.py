"""What a note of the operator may be, whoever keeps it."""

NOTE = "note"
MOST_CHARACTERS = 10_000


class BadNote(ValueError):
    """A note cannot be kept; says why, and what would do."""


def said(text: str) -> str:
    """Return a note's text without what surrounds it.

    Raises
    ------
    BadNote
        It is empty or very long.
    """
    kept = text.strip()
    if not kept or len(kept) > MOST_CHARACTERS:
        raise BadNote(f"a note has 1 to {MOST_CHARACTERS} characters; this one has {len(kept)}")
    return kept
