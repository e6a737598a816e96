"""What a crash left is made whole from the file and its journal; the original stays as it is."""

import dataclasses
import hashlib

import h5py
import numpy as np
import pytest

from session import Session
from session.errors import SessionExists, SessionRefused
from session.journal import Journal, journal_path, read_journal
from session.journal_words import begin
from session.records import EXCHANGE_DTYPE, TEMPERATURE_DTYPE
from session.recover import recover, recovered_path
from session.validate import validate
from session.writer import SessionWriter

FRAMES, SAMPLES = 11, 40


def hash_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def killed(tmp_path, make):
    """A session whose recorder was killed after the journal was written, before the flush."""

    def make_killed(flushed_frames=5):
        path = tmp_path / "s.h5"
        journal = Journal(path)
        begin(journal, make.header())
        writer = SessionWriter(path, make.header(), journal=journal, monotonic_ns=lambda: 0)
        for index in range(FRAMES):
            writer.append_frame("camera", make.frame_header(index), make.pixels(index))
            if index == flushed_frames - 1:
                writer.append_samples(make.samples(SAMPLES // 2))
                writer.append_event(7, "step", "plan", "begins", '{"step": 1}')
                writer.flush()
        rows = np.zeros(2, EXCHANGE_DTYPE)
        rows["t0_ns"] = 11, 12
        writer.append_exchanges("node", rows)
        warm = np.zeros(2, TEMPERATURE_DTYPE)
        warm["t_ns"], warm["temperature"] = (13, 14), (300.0, np.nan)
        writer.append_temperatures(warm)
        writer.append_samples(make.samples(SAMPLES - SAMPLES // 2, SAMPLES // 2))
        writer.append_event(9, "limit", "guardian", "too much", "{}")
        writer.put_attributes("instrument/potentiostat", {"found": (1, 2)})
        writer.set_queue_counters("outbox", {"dropped": 0})
        for camera in writer._cameras.values():
            camera.settle()
        journal.write()
        image = path.read_bytes()
        writer.close()
        journal.close()
        path.write_bytes(image)  # as it lay on the disk when the process was gone
        return path

    return make_killed


def assert_whole(path, make, frames=range(FRAMES)):
    assert validate(path) == []
    with Session.open(path) as session:
        assert session.exit_reason == "recorder lost"
        samples = session.sample_columns()
        np.testing.assert_array_equal(samples["voltage"], make.samples(SAMPLES)["voltage"])
        np.testing.assert_array_equal(session.frame_table("camera")["index"], list(frames))
        for pixels, index in zip(session.frames("camera"), frames, strict=True):
            np.testing.assert_array_equal(pixels, make.pixels(index))
        kinds = [event.kind for event in session.events()]
        assert kinds == ["step", "limit", "fault"]
        assert session.events()[0].data == {"step": 1}
        warm = session.table("temperature")
        np.testing.assert_array_equal(warm["temperature"], [300.0, np.nan])
        np.testing.assert_array_equal(warm["t_ns"], [13, 14])
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["entry/clocks/node/exchanges/t0_ns"], [11, 12])


def test_rows_that_only_the_journal_has_are_taken_from_it(killed, make):
    path = killed()
    before = hash_of(path), hash_of(journal_path(path))
    # The clock's table was made after the flush, so that the file does not know it.
    recovered = recover(path)
    assert recovered.path == recovered_path(path)
    assert "20 rows of samples taken from the journal" in recovered.done
    assert "6 rows of frames/camera taken from the journal" in recovered.done
    assert recovered.missing == ()
    assert_whole(recovered.path, make)
    assert (hash_of(path), hash_of(journal_path(path))) == before


@pytest.mark.parametrize("damage", ["first block", "gone"])
def test_a_file_that_does_not_open_is_made_anew_from_the_journal(killed, make, damage):
    path = killed()
    content = bytearray(path.read_bytes())
    content[:96] = b"\xff" * 96
    path.write_bytes(content)
    if damage == "gone":
        path.unlink()
    recovered = recover(path)
    assert "made anew" in recovered.done[0]
    if damage == "gone":
        assert len(recovered.missing) == FRAMES
        assert_whole(recovered.path, make, frames=())
        return
    assert recovered.missing == ()
    assert_whole(recovered.path, make)
    with h5py.File(recovered.path) as file:
        attributes = dict(file["entry/instrument/potentiostat"].attrs)
        assert list(attributes["found"]) == [1, 2]
        assert attributes["model"] == "6430"
        assert file["entry/queues/outbox"].attrs["dropped"] == 0
        assert file["entry/experiment"].asstr()[()] == make.header().experiment_text


def test_pixels_that_are_not_right_are_a_gap_and_told(killed, make):
    path = killed()
    entries = read_journal(journal_path(path)).entries
    place = [entry.said["place"] for entry in entries if entry.kind == "frame"][7]
    with path.open("r+b") as stream:
        stream.seek(place)
        stream.write(b"\xaa")
    recovered = recover(path)
    assert recovered.missing == ("frames/camera: the pixels of frame 7 are not in the file",)
    assert_whole(recovered.path, make, [i for i in range(FRAMES) if i != 7])
    with Session.open(recovered.path) as session:
        dropped = session.frame_table("camera")["dropped_before"]
        assert list(dropped) == [0] * 7 + [1] + [0] * 2


def test_a_journal_that_ends_in_the_middle_of_an_entry_is_whole_up_to_there(killed, make):
    path = killed()
    whole = read_journal(journal_path(path))
    assert whole.torn_bytes == 0
    with journal_path(path).open("r+b") as stream:
        stream.truncate(journal_path(path).stat().st_size - 3)
    torn = read_journal(journal_path(path))
    assert torn.entries == whole.entries[:-1]
    assert torn.torn_bytes > 0
    recovered = recover(path)
    assert f"the last {torn.torn_bytes} bytes of the journal" in recovered.missing[0]
    assert_whole(recovered.path, make)


def test_every_byte_of_a_journal_counts(killed):
    path = journal_path(killed())
    content = path.read_bytes()
    whole = len(read_journal(path).entries)
    at = content.index(b'{"kind":"event"')
    for offset in range(-16, 40):
        spoilt = bytearray(content)
        spoilt[at + offset] ^= 0x10
        path.write_bytes(spoilt)
        assert len(read_journal(path).entries) < whole


def test_where_file_and_journal_differ_the_file_is_kept_and_it_is_told(killed, make):
    path = killed()
    with h5py.File(path, "r+") as file:
        file["entry/samples/read_start_ns"][3] = 5
    recovered = recover(path)
    assert "samples: 1 rows differ between file and journal, first row 3" in recovered.missing[0]
    with h5py.File(recovered.path) as file:
        assert file["entry/samples/read_start_ns"][3] == 5


def test_a_column_that_the_journal_does_not_know_is_unknown(killed, make):
    path = killed()
    found = read_journal(journal_path(path))
    said = dict(found.entries[0].said)
    said["rows"] = said["rows"] | {
        "samples": [[n if n != "voltage" else "old", k] for n, k in said["rows"]["samples"]]
    }
    journal_path(path).unlink()
    journal = Journal(path)
    journal.add(said)
    for entry in found.entries[1:]:
        dtype = np.dtype("V1") if entry.rows else None
        journal.add(entry.said, None if dtype is None else np.frombuffer(entry.rows, dtype))
    journal.close()
    recovered = recover(path)
    with Session.open(recovered.path) as session:
        voltage = session.sample_columns()["voltage"]
    assert np.isnan(voltage[SAMPLES // 2 :]).all()
    assert not np.isnan(voltage[: SAMPLES // 2]).any()


def test_a_journal_from_before_there_were_temperatures_is_read(killed, make):
    path = killed()
    found = read_journal(journal_path(path))
    said = dict(found.entries[0].said)
    said["rows"] = {name: rows for name, rows in said["rows"].items() if name != "temperature"}
    journal_path(path).unlink()
    journal = Journal(path)
    journal.add(said)
    for entry in found.entries[1:]:
        if entry.kind != "temperature":
            rows = np.frombuffer(entry.rows, "V1") if entry.rows else None
            journal.add(entry.said, rows)
    journal.close()
    with Session.open(recover(path).path) as session:
        assert len(session.sample_columns()["voltage"]) == SAMPLES
        assert not session.has("temperature")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"kind": "samples"}, "does not begin as a journal"),
        ({"kind": "session", "schema": "lamella-session", "schema_version": "9.0"}, "begin as"),
        ({"schema_version": "1.0", "rows": {}}, "does not say what its rows are"),
        ({"rows": {"samples": [["a", "O"]], "exchanges": [], "frame": []}}, "holds"),
        ({"header": {"title": "x"}}, "first entry is not ours"),
    ],
)
def test_a_journal_that_is_not_ours_is_refused(tmp_path, make, said, why):
    path = tmp_path / "s.h5"
    journal = Journal(path)
    begin(journal, make.header())
    journal.write()
    (first,) = read_journal(journal.path).entries
    journal.remove()
    journal = Journal(path)
    journal.add(said if "kind" in said else {**first.said, **said})
    journal.close()
    with pytest.raises(SessionRefused, match=why):
        recover(path)
    assert not recovered_path(path).exists()
    assert list(tmp_path.iterdir()) == [journal.path]


def test_nothing_is_overwritten(killed, make, tmp_path):
    path = killed()
    recovered_path(path).write_bytes(b"mine")
    with pytest.raises(SessionExists, match="another name"):
        recover(path)
    assert recovered_path(path).read_bytes() == b"mine"
    assert_whole(recover(path, tmp_path / "other.h5").path, make)


def test_a_finished_session_needs_nothing(write_session):
    path = write_session()
    recovered = recover(path)
    assert dataclasses.astuple(recovered) == (path, (), ())
    assert not recovered_path(path).exists()


def test_neither_file_nor_journal(tmp_path):
    with pytest.raises(SessionRefused, match="no such file"):
        recover(tmp_path / "none.h5")


def test_a_failure_half_way_leaves_nothing(killed, monkeypatch):
    path = killed()
    monkeypatch.setattr("session.recover.SessionEditor.open", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        recover(path)
    assert {p.name for p in path.parent.iterdir()} == {"s.h5", "s.h5.journal"}
