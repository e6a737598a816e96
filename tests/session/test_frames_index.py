"""Frames on disk are indexed as NumPy would index them, and Dask reads them by path."""

import pickle

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, basic_indices, integer_array_indices

from session import Session
from session.errors import SessionRefused
from session.selection import select

SHAPE = (7, 4, 5)
ALL = np.arange(np.prod(SHAPE)).reshape(SHAPE)


def indexed(key):
    """What the selection reads of ALL, and then takes of that."""
    wanted = select(key, SHAPE)
    return ALL[list(wanted.frames)][:, wanted.rows, wanted.columns][wanted.key]


masks = st.lists(st.booleans(), min_size=7, max_size=7).map(np.array)
arrays = integer_array_indices(SHAPE, result_shape=array_shapes(max_dims=2, max_side=3))
mixed = st.tuples(
    st.one_of(masks, st.lists(st.integers(-7, 6), max_size=4), st.slices(7), st.integers(-7, 6)),
    st.one_of(st.slices(4), st.integers(-4, 3), st.just(np.array([True, False, True, True]))),
)


@settings(max_examples=300, deadline=None)
@given(key=st.one_of(basic_indices(SHAPE, allow_newaxis=True), arrays, mixed, masks))
def test_every_index_gives_what_numpy_gives(key):
    try:
        expected = ALL[key]
    except IndexError:  # two lists of different lengths
        with pytest.raises(IndexError):
            indexed(key)
        return
    found = indexed(key)
    assert found.shape == expected.shape
    assert np.array_equal(found, expected)


def test_masks_of_pixels_are_indices_too():
    mask = ALL % 3 == 0
    assert np.array_equal(indexed(mask), ALL[mask])
    assert np.array_equal(indexed((slice(1, 3), mask[0])), ALL[1:3, mask[0]])


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (7, "frame 7 of 7"),
        (-8, "frame -8 of 7"),
        ([0, 9], "frame 9 of 7"),
        ((0, 4), "row 4 of 4"),
        ((0, 0, -6), "column -6 of 5"),
        ((0, 0, 0, 0), "4 indices for frames of 3 dimensions"),
        ((..., 0, ...), "can stand once"),
        (np.ones(6, bool), r"a mask of shape \(6,\) for frames of shape \(7,\)"),
        (1.5, "1.5 is no index of frames"),
        ("camera", "'camera' is no index"),
        (True, "True is no index"),
    ],
    ids=str,
)
def test_what_is_no_index_is_named(key, why):
    with pytest.raises(IndexError, match=why):
        select(key, SHAPE)


def test_only_what_is_asked_for_is_read():
    wanted = select((slice(None, None, -3), slice(3, 1, -1), 2), SHAPE)
    assert list(wanted.frames) == [0, 3, 6]
    assert (wanted.rows, wanted.columns) == (slice(2, 4), slice(2, 3))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, request):
    from session.writer import SessionWriter
    from tests.session.conftest import make_frame_header, make_header, make_pixels, make_samples

    path = tmp_path_factory.mktemp("frames") / "session.h5"
    with SessionWriter(path, make_header()) as writer:
        writer.append_samples(make_samples(30))
        for index in range(10):
            writer.append_frame("camera", make_frame_header(index), make_pixels(index))
        writer.finish("done", "")
    return path, np.stack([make_pixels(index) for index in range(10)])


def test_frames_of_a_file_are_indexed(recorded):
    path, expected = recorded
    with Session.open(path) as session:
        frames = session.frames("camera")
        for key in (3, -1, [4, 4, 0], slice(None, None, -4), (slice(2, 9, 3), slice(1, 3), 5)):
            assert np.array_equal(frames[key], expected[key])
        assert np.array_equal(frames[expected[:, 0, 0] % 2 == 0], expected[::2])
        assert (frames.size, frames.nbytes) == (480, 960)
        assert len(list(frames)) == 10


def test_a_frame_that_is_not_in_the_file_is_no_black_one(tmp_path, recorded):
    path = tmp_path / "copy.h5"
    path.write_bytes(recorded[0].read_bytes())
    with h5py.File(path, "r+") as file:
        group = file["entry/frames/camera"]
        del group["data"]
        data = group.create_dataset("data", (10, 6, 8), "u2", chunks=(1, 6, 8))
        data[:4] = 1
    with Session.open(path) as session:
        frames = session.frames("camera")
        assert (frames[3] == 1).all()
        with pytest.raises(SessionRefused, match="frames 4 to 4 .* cannot be read"):
            frames[4]


def test_closed_frames_say_what_would_do(recorded):
    with Session.open(recorded[0]) as session:
        frames = session.frames("camera")
    with pytest.raises(SessionRefused, match="was closed or refreshed"):
        frames[0]
    with pytest.raises(SessionRefused, match="the session was closed"):
        session.events()


def test_dask_reads_by_path_wherever_it_runs(recorded):
    path, expected = recorded
    with Session.open(path) as session:
        frames = session.frames("camera").dask(4)
    assert frames.chunks == ((4, 4, 2), (6,), (8,))
    sent = pickle.loads(pickle.dumps(frames))  # what another process gets
    assert np.array_equal(sent.compute(scheduler="threads"), expected)
    assert int(frames[::3, 2:].sum().compute(scheduler="synchronous")) == expected[::3, 2:].sum()


def test_dask_says_when_the_file_is_another_one(tmp_path, recorded):
    path = tmp_path / "copy.h5"
    path.write_bytes(recorded[0].read_bytes())
    with Session.open(path) as session:
        frames = session.frames("camera").dask()
    with h5py.File(path, "r+") as file:
        file["entry/frames/camera/data"].resize(2, axis=0)
    with pytest.raises(SessionRefused, match="no longer holds"):
        frames.compute(scheduler="synchronous")
    with h5py.File(path, "r+") as file:
        del file["entry/frames/camera"]
        file["entry/frames/camera"] = h5py.ExternalLink("/etc/other.h5", "/")
    with pytest.raises(SessionRefused, match="a link to elsewhere"):
        frames.compute(scheduler="synchronous")


@pytest.mark.parametrize(
    ("asked", "rows"),
    [
        ({"from_ns": 1_000 + 5 * 50_000_000}, slice(5, None)),
        ({"to_ns": 1_000 + 5 * 50_000_000}, slice(0, 5)),
        ({"from_ns": 2_000, "to_ns": 1_000 + 3 * 50_000_000}, slice(1, 3)),
        ({"from_ns": 10**18}, slice(0, 0)),
        ({"step": 0}, slice(None)),
        ({"step": [1, 2]}, slice(0, 0)),
        ({"columns": ["current", "voltage"]}, slice(None)),
    ],
    ids=str,
)
def test_some_samples_are_those_of_all(recorded, asked, rows):
    with Session.open(recorded[0]) as session:
        every, some = session.samples(), session.samples(**asked)
    names = [n for n in every.columns if n in asked.get("columns", every.columns)]
    assert some.equals(every[names].iloc[rows])
    assert some.attrs["units"]["voltage"] == "V"


def test_steps_in_pieces_are_read_in_pieces(tmp_path):
    from session.writer import SessionWriter
    from tests.session.conftest import make_header, make_samples

    rows = make_samples(9000)
    rows["step"][100:103] = rows["step"][8000:8002] = 4
    with SessionWriter(tmp_path / "s.h5", make_header()) as writer:
        writer.append_samples(rows)
        writer.finish("done", "")
    with Session.open(tmp_path / "s.h5") as session:
        found = session.samples(step=4, columns=["voltage"])
    assert found.index.tolist() == rows["t_ns"][rows["step"] == 4].tolist()
    assert found["voltage"].tolist() == rows["voltage"][rows["step"] == 4].tolist()


def test_unknown_columns_are_named(recorded):
    with (
        Session.open(recorded[0]) as session,
        pytest.raises(SessionRefused, match="no column 'volts'; there is t_ns"),
    ):
        session.samples(columns=["volts"])
