"""Sessions of older and of newer versions of the schema."""

import h5py
import numpy as np
import pytest

from session import Session
from session.attributes import HELD, SEAL
from session.editor import SessionEditor
from session.errors import SessionRefused
from session.migrations import MIGRATIONS, filled, lacking, parse_version
from session.schema import GROUPS, NO_STAMP, SAMPLES, SCHEMA_VERSION
from session.validate import Severity, validate


@pytest.fixture
def old(write_session):
    """A session as the first version had it: without what came later."""
    path = write_session("old.h5", frames=3)
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = "1.0"
        entry = file["entry"]
        for name in ("averaged", "left_out"):
            del entry["samples"][name]
        for name in ("arrival_ns", "left_out"):
            del entry["frames/camera"][name]
        for name in ("stamp", "clock", "row_time"):
            del entry["frames/camera"].attrs[name]
        entry.visititems(lambda _, each: unseal(each))
        unseal(entry)
    return path


def unseal(target):
    for name in (SEAL, HELD):
        if name in target.attrs:
            del target.attrs[name]


def test_an_old_session_verifies_and_reads_as_one_of_today(old):
    assert validate(old) == []
    before = old.read_bytes()
    with Session.open(old) as session:
        columns, frames = session.sample_columns(), session.frame_table("camera")
        rows = len(columns["t_ns"])
        table = session.samples()
    assert rows > 1
    np.testing.assert_array_equal(columns["averaged"], np.ones(rows))
    np.testing.assert_array_equal(columns["left_out"], np.zeros(rows))
    assert columns["averaged"].dtype == np.int32
    assert set(frames["arrival_ns"].tolist()) == {NO_STAMP}
    assert list(table["averaged"]) == [1] * rows
    assert old.read_bytes() == before


def test_results_can_be_written_into_an_old_session(old):
    with SessionEditor.open(old) as editor:
        editor.add_event(5_000, "note", "operator", "seen")
    with Session.open(old) as session:
        assert session.events()[-1].message == "seen"
    assert validate(old) == []


def test_a_newer_session_is_read_but_neither_judged_nor_written(write_session):
    path = write_session("new.h5", frames=3)
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = "1.90"
    with Session.open(path) as session:
        assert len(session.sample_columns()["t_ns"]) > 1
    (problem,) = validate(path)
    assert problem.severity is Severity.WARNING
    assert "newer than" in problem.message
    assert "newer Lamella" in problem.message
    with pytest.raises(SessionRefused, match=r"1\.90.*writes nothing into it"):
        SessionEditor.open(path)


def test_the_table_of_migrations_leads_to_the_schema_of_today():
    versions = [parse_version(m.version) for m in MIGRATIONS]
    assert versions == sorted(set(versions))
    assert MIGRATIONS[-1].version == SCHEMA_VERSION
    groups = {group.path: {c.name: c for c in group.columns} for group in GROUPS}
    for migration in MIGRATIONS:
        for path, columns in migration.columns.items():
            for name in columns:
                # A file of this version may leave out what older ones do not have.
                assert not groups[path][name].required
    assert lacking("1.0", SAMPLES) == {"averaged": 1, "left_out": 0}
    assert lacking(SCHEMA_VERSION, SAMPLES) == {}
    assert set(filled("1.0", SAMPLES, 3, {"averaged"})) == {"left_out"}
