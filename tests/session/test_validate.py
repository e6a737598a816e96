"""The validator finds what is wrong, and nothing else."""

import h5py
import numpy as np
import pytest

from session import Session
from session.recover import recover
from session.schema import NO_STAMP
from session.validate import Problem, Severity, validate
from session.writer import SessionWriter


@pytest.fixture
def spoil(write_session):
    def change_and_validate(change):
        path = write_session()
        with h5py.File(path, "r+") as file:
            change(file["entry"])
        return validate(path)

    return change_and_validate


def test_a_good_session_has_no_problem(write_session):
    assert validate(write_session()) == []


def flip_a_bit(entry):
    frame = entry["frames/camera/data"][7]
    frame[0, 0] ^= 1
    entry["frames/camera/data"][7] = frame


def hide_a_gap(entry):
    index = entry["frames/camera/index"]
    index[40:] = index[40:] + 3


def rename_a_class(entry):
    entry["samples"].attrs["NX_class"] = "NXother"


def replace_voltage(entry, **changes):
    del entry["samples/voltage"]
    entry["samples"].create_dataset("voltage", **changes)


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        (flip_a_bit, "frames/camera/data", "frame 7 is not what was recorded"),
        (hide_a_gap, "frames/camera/dropped_before", "at row 40 the counter lost 3"),
        (rename_a_class, "samples", "NX_class is NXother"),
        (lambda e: e.__delitem__("events"), "events", "is missing"),
        (lambda e: e.__delitem__("samples/voltage"), "samples/voltage", "is missing"),
        (
            lambda e: replace_voltage(e, data=np.zeros(30, "f4")),
            "samples/voltage",
            "is float32",
        ),
        (
            lambda e: replace_voltage(e, data=np.zeros((30, 2))),
            "samples/voltage",
            "has shape",
        ),
        (
            lambda e: e["samples/voltage"].attrs.__setitem__("units", "mV"),
            "samples/voltage",
            "unit is 'mV'",
        ),
        (
            lambda e: e["frames/camera"].attrs.__delitem__("pixel_size"),
            "frames/camera@pixel_size",
            "is missing",
        ),
        (
            lambda e: e["samples/t_ns"].__setitem__(5, 0),
            "samples/t_ns",
            "first at row 5",
        ),
        (
            lambda e: e["samples/read_end_ns"].__setitem__(5, 0),
            "samples/read_end_ns",
            "1 readings end before",
        ),
        (
            lambda e: e["frames/camera/t_start_ns"].__setitem__(5, 0),
            "frames/camera/t_start_ns",
            "does not rise",
        ),
        (
            lambda e: e["frames/camera/data"].resize(60, axis=0),
            "frames/camera/data",
            "60 frames for 70 stamps",
        ),
        (
            lambda e: e["events/data"].__setitem__(0, "{"),
            "events/data",
            "row 0 is not JSON",
        ),
    ],
)
def test_each_fault_is_found_and_named(spoil, change, path, message):
    problems = spoil(change)
    assert problems[0].path == path
    assert message in problems[0].message
    assert problems[0].severity is Severity.ERROR


def test_unknown_groups_are_only_unusual(spoil):
    problems = spoil(lambda entry: entry.create_group("mine"))
    assert problems == [
        Problem(path="mine", message="is not in the schema", severity=Severity.WARNING)
    ]


def test_a_stated_gap_is_no_problem(tmp_path, make):
    with SessionWriter(tmp_path / "s.h5", make.header()) as writer:
        for index, dropped in ((3, 0), (4, 0), (9, 4), (10, 0)):
            header = make.frame_header(index, dropped_before=dropped, blanked=True)
            writer.append_frame("camera", header, make.pixels(index))
        writer.finish("done", "")
    assert validate(tmp_path / "s.h5") == []
    with Session.open(tmp_path / "s.h5") as session:
        assert session.frame_table("camera")["blanked"].tolist() == [1, 1, 1, 1]


def test_pixels_are_not_read_when_not_asked(write_session):
    path = write_session()
    with h5py.File(path, "r+") as file:
        flip_a_bit(file["entry"])
    assert validate(path, pixels=False) == []


@pytest.fixture
def unfinished(write_session):
    """A session as a killed recorder may leave it."""
    path = write_session()
    with h5py.File(path, "r+") as file:
        entry = file["entry"]
        entry["exit_reason"][()] = "not finished"
        entry["samples/voltage"].resize(35, axis=0)
        entry["frames/camera/data"].resize(128, axis=0)
        for name in ("t_start_ns", "index"):
            entry[f"frames/camera/{name}"].resize(72, axis=0)
        for column in entry["events"].values():
            column.resize(3, axis=0)
        entry["events/t_ns"][1:] = NO_STAMP
    return path


def test_only_whole_rows_of_an_unfinished_session_count(unfinished):
    with Session.open(unfinished) as session:
        assert len(session.samples()) == 30
        assert len(session.frames("camera")) == 70
        assert len(session.frame_table("camera")) == 70
        assert len(session.events()) == 1
    problems = validate(unfinished)
    assert {problem.severity for problem in problems} == {Severity.WARNING}


def test_recovery_cuts_to_whole_rows_and_says_so(unfinished):
    recovered = recover(unfinished)
    done, unfinished = recovered.done, recovered.path
    assert "samples/voltage cut by 5" in done
    assert "frames/camera/data cut by 58" in done
    assert "events/kind cut by 2" in done
    assert validate(unfinished) == []
    with Session.open(unfinished) as session:
        assert session.exit_reason == "recorder lost"
        event = session.events()[-1]
        assert event.t_ns == session.frame_table("camera")["t_start_ns"][-1]
        assert "voltage cut by 5" in event.message
    with h5py.File(unfinished) as file:
        assert file["entry/frames/camera/data"].shape == (70, 6, 8)


def test_a_table_that_was_never_stamped_is_empty(write_session):
    path = write_session(samples=3_000)
    with h5py.File(path, "r+") as file:
        file["entry/samples/t_ns"][...] = NO_STAMP
    with Session.open(path) as session:
        assert len(session.samples()) == 0


def test_a_file_that_cannot_be_read_to_the_end_is_a_problem(write_session, monkeypatch):
    def fail(*_):
        raise RuntimeError("bad heap pointer")

    monkeypatch.setattr("session.validate.read_column", fail)
    (problem,) = validate(write_session())
    assert problem.message == "the file is damaged: bad heap pointer"
