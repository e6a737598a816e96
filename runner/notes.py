"""What an operator has to say of a session afterwards, kept in it."""

from datetime import UTC, datetime
from pathlib import Path

from runner.note_text import NOTE, BadNote, said
from session.editor import SessionEditor
from session.reader import Session


def add_note(path: Path, text: str, *, at_s: float | None = None) -> int:
    """Keep a note as an event of a session; return its host stamp.

    Parameters
    ----------
    at_s
        Time since the session began that the note is about; its last event where None.

    Raises
    ------
    BadNote
        It is empty, very long, or about a time outside of the session.
    SessionRefused
        The file is no session, or another program writes it.
    """
    kept = said(text)
    with Session.open(path) as session:
        stamps = [e.t_ns for e in session.events()] + session.sample_columns()["t_ns"].tolist()
        start_ns = session.host_start_ns
    last_ns = max(stamps, default=start_ns)
    t_ns = last_ns if at_s is None else start_ns + round(at_s * 1e9)
    if not start_ns <= t_ns <= last_ns:
        lasts_s = (last_ns - start_ns) / 1e9
        raise BadNote(f"--at {at_s:g} s lies outside of {path}, which lasts {lasts_s:.6g} s")
    with SessionEditor.open(path) as editor:
        written = {"written_at": datetime.now(UTC).isoformat()}
        editor.add_event(t_ns, NOTE, "operator", kept, written)
    return t_ns
