"""Makes whole what a killed recorder left."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import h5py

from session.columns import count_rows
from session.editor import SessionEditor
from session.reader import Session
from session.records import NOT_FINISHED
from session.schema import ROOT, find_group
from session.spec import Group, Shape
from session.structure import open_checked

RECORDER_LOST = "recorder lost"


def recover(path: Path | str) -> tuple[str, ...]:
    """Cut the tables of a session back to whole rows, and say so in the file.

    What lies beyond the last whole row was on its way when the recorder was killed. A
    session that was finished is left as it is.

    Returns
    -------
    tuple of str
        What was done, in words; empty when the session was finished in order.

    Raises
    ------
    SessionRefused
        The file is not a session, or in use.
    """
    path = Path(path)
    with Session.open(path) as session:
        if session.exit_reason != NOT_FINISHED:
            return ()
    with open_checked(path, "r+") as file:
        entry = file[ROOT]
        done = [cut for name, group, spec in _tables(entry) for cut in _cut(name, group, spec)]
        last_t_ns = _last_stamp(entry)
        entry["exit_reason"][()] = RECORDER_LOST
    done.append(f"exit_reason is now {RECORDER_LOST!r}")
    with SessionEditor.open(path) as editor:
        editor.add_event(
            last_t_ns,
            "fault",
            "recover",
            f"the recorder was killed: {'; '.join(done)}",
            {"recovered": datetime.now(UTC).isoformat()},
        )
    return tuple(done)


def _tables(entry: h5py.Group) -> Iterator[tuple[str, h5py.Group, Group]]:
    names = ["samples", "events"]
    names += [f"frames/{camera}" for camera in entry["frames"]]
    names += [f"clocks/{clock}/exchanges" for clock in entry["clocks"]]
    for name in names:
        spec = find_group(name)
        if spec is not None and name in entry:
            yield name, entry[name], spec


def _cut(name: str, group: h5py.Group, spec: Group) -> Iterator[str]:
    count = count_rows(group, spec)
    for column in spec.columns:
        if column.shape not in (Shape.ROWS, Shape.FRAMES):
            continue
        excess = group[column.name].shape[0] - count
        if excess > 0:
            group[column.name].resize(count, axis=0)
            yield f"{name}/{column.name} cut by {excess}"


def _last_stamp(entry: h5py.Group) -> int:
    stamps = [int(entry.attrs["host_start_ns"])]
    for _, group, spec in _tables(entry):
        stamps += map(int, group[spec.rows[0].name][-1:])
    return max(stamps)
