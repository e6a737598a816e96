"""What is written is what is read."""

import dataclasses

import numpy as np
import pytest

from session import Session
from session.errors import SessionExists, SessionRefused
from session.records import SESSION_SAMPLE_DTYPE
from session.writer import SessionWriter, event_json


def test_words_of_the_header_come_back(write_session, make):
    with Session.open(write_session()) as session:
        header = make.header()
        assert session.title == header.title
        assert session.experiment_text == header.experiment_text
        assert session.start_time == header.start_time
        assert session.end_time == "2025-03-01T11:00:00+00:00"
        assert session.exit_reason == "done"
        assert session.simulated is True
        assert session.host_start_ns == 1_000
        assert session.layers == header.layers
        assert session.provenance == header.provenance
        assert session.attributes("sample")["width_m"] == 5e-6
        assert session.attributes("instrument/potentiostat")["ranges_A"] == (
            1e-12,
            1e-11,
        )
        assert session.attributes("queues/view")["dropped"] == 1
        assert session.cameras == ("camera",)
        assert session.clocks == ("camera", "potentiostat")
        assert session.tracks == ()
        assert session.calibration is None


def test_samples_are_a_frame_indexed_by_host_time(write_session, make):
    with Session.open(write_session()) as session:
        samples = session.samples()
        columns = session.sample_columns()
    expected = make.samples(30)
    assert samples.index.name == "t_ns"
    assert samples.index.dtype == np.int64
    np.testing.assert_array_equal(samples.index, expected["t_ns"])
    np.testing.assert_array_equal(samples["voltage"], expected["voltage"])
    assert samples.attrs["units"]["voltage"] == "V"
    assert samples.attrs["units"]["current"] == "A"
    assert samples.attrs["units"]["charge_ionic_sigma"] == "C"
    assert tuple(columns) == SESSION_SAMPLE_DTYPE.names
    assert {n: c.dtype for n, c in columns.items()} == {
        n: SESSION_SAMPLE_DTYPE[n] for n in SESSION_SAMPLE_DTYPE.names
    }


def test_frames_come_back_with_their_stamps(write_session, make):
    with Session.open(write_session()) as session:
        frames = session.frames("camera")
        table = session.frame_table("camera")
        assert frames.shape == (70, 6, 8)
        assert frames.dtype == np.uint16
        assert len(frames) == len(table) == 70
        for number, pixels in enumerate(frames):
            np.testing.assert_array_equal(pixels, make.pixels(number))
        np.testing.assert_array_equal(table["index"], np.arange(70))
        np.testing.assert_allclose(table["device_time_s"], 7 + np.arange(70) * 0.05)
        np.testing.assert_allclose(table["dose"], 1e20 * np.arange(70))
        assert table.units["dose"] == "1/m^2"
        assert table.attributes["pixel_size"] == 0.8e-9
        assert table.attributes["model"] == "Maker One"
        assert "data" not in table


def test_events_and_exchanges_come_back(write_session, make):
    with Session.open(write_session()) as session:
        (event,) = session.events()
        exchanges = session.clock_exchanges("potentiostat")
        assert session.clock_fits("camera") == ()
    assert (event.t_ns, event.kind, event.source) == (1_000, "step", "runner")
    assert event.data == {"step": 0}
    np.testing.assert_array_equal(exchanges, make.exchanges(3))


def test_frames_are_sliced_like_an_array(write_session):
    with Session.open(write_session(frames=10)) as session:
        frames = session.frames("camera")
        whole = np.asarray(frames)
        assert frames.ndim == whole.ndim == 3
        np.testing.assert_array_equal(frames[-1], whole[-1])
        np.testing.assert_array_equal(frames[np.int64(3)], whole[3])
        np.testing.assert_array_equal(frames[2:9:3], whole[2:9:3])
        np.testing.assert_array_equal(frames[::-2], whole[::-2])
        np.testing.assert_array_equal(frames[1:3, 2:4, 1], whole[1:3, 2:4, 1])
        np.testing.assert_array_equal(frames[4, 1:3], whole[4, 1:3])
        assert frames[20:].shape == (0, 6, 8)
        assert frames[20:, 1:3].shape == (0, 2, 8)
        assert [start for start, _ in frames.chunks(4)] == [0, 4, 8]
        assert np.array(frames, dtype=np.float32).dtype == np.float32
        with pytest.raises(IndexError, match="frame 10 of 10"):
            frames[10]
        with pytest.raises(IndexError, match="frame -11"):
            frames[-11]
        with pytest.raises(ValueError, match="without a copy"):
            np.array(frames, copy=False)


def test_an_existing_file_is_never_overwritten(tmp_path, make):
    path = tmp_path / "precious.h5"
    path.write_bytes(b"precious")
    with pytest.raises(SessionExists, match=r"precious\.h5 exists already"):
        SessionWriter(path, make.header())
    assert path.read_bytes() == b"precious"


def test_a_missing_folder_is_named(tmp_path, make):
    with pytest.raises(SessionRefused, match=r"nowhere.*existing folder"):
        SessionWriter(tmp_path / "nowhere" / "s.h5", make.header())


def test_an_empty_session_can_be_read(tmp_path, make):
    path = tmp_path / "empty.h5"
    with SessionWriter(path, make.header(cameras=(), clocks=())) as writer:
        writer.append_samples(make.samples(0))
    with Session.open(path) as session:
        assert len(session.samples()) == 0
        assert session.events() == ()
        assert session.cameras == ()
        assert session.exit_reason == "not finished"
        assert session.end_time == ""


def test_many_samples_at_once_do_not_wait_in_memory(tmp_path, make):
    with SessionWriter(tmp_path / "s.h5", make.header(), monotonic_ns=lambda: 0) as writer:
        for block in range(5):
            writer.append_samples(make.samples(2_000, 2_000 * block))
        assert writer.sample_count == 10_000
        assert writer._file["entry/samples/t_ns"].shape == (10_000,)
        writer.finish("done", "")
    with Session.open(tmp_path / "s.h5") as session:
        np.testing.assert_array_equal(
            session.sample_columns()["voltage"], make.samples(10_000)["voltage"]
        )


def test_flush_is_due_after_a_fifth_of_a_second(tmp_path, make):
    now_ns = 0
    with SessionWriter(tmp_path / "s.h5", make.header(), monotonic_ns=lambda: now_ns) as writer:
        column = writer._file["entry/samples/t_ns"]
        writer.append_samples(make.samples(1))
        assert column.shape == (0,)
        assert writer.seconds_until_flush() == pytest.approx(0.2)
        now_ns = 200_000_000
        writer.append_event(5, "note", "test", "x")
        assert column.shape == (1,)


def test_the_last_stamp_is_remembered(tmp_path, make):
    with SessionWriter(tmp_path / "s.h5", make.header()) as writer:
        assert writer.last_t_ns == 1_000
        writer.append_frame("camera", make.frame_header(1), make.pixels(1))
        assert writer.last_t_ns == 50_001_000
        writer.append_event(10, "note", "test", "earlier")
        assert writer.last_t_ns == 50_001_000
        assert writer.frame_count("camera") == 1


def test_wrong_rows_and_frames_are_refused(tmp_path, make):
    with SessionWriter(tmp_path / "s.h5", make.header()) as writer:
        with pytest.raises(TypeError, match="would do"):
            writer.append_samples(make.exchanges(1))
        with pytest.raises(SessionRefused, match=r"uint8.*uint16.*expected"):
            writer.append_frame("camera", make.frame_header(0), make.pixels(0).astype("u1"))
        with pytest.raises(SessionRefused, match="it has camera"):
            writer.append_frame("other", make.frame_header(0), make.pixels(0))
        with pytest.raises(SessionRefused, match="clock name"):
            writer.append_exchanges("../x", make.exchanges(1))
        with pytest.raises(SessionRefused, match="no attributes can be added"):
            writer.put_attributes("samples", {"a": 1})
        with pytest.raises(SessionRefused, match="no attributes can be added"):
            writer.put_attributes("nothing/of/that", {"a": 1})
        with pytest.raises(SessionRefused, match="queue name"):
            writer.set_queue_counters("a/b", {})


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"clocks": ("a/b",)}, "clock name 'a/b'"),
        ({"clocks": ("a", "a")}, "two clocks have one name"),
    ],
)
def test_bad_names_in_a_header_are_refused(tmp_path, make, changes, match):
    with pytest.raises(SessionRefused, match=match):
        SessionWriter(tmp_path / "s.h5", make.header(**changes))
    assert not (tmp_path / "s.h5").exists()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"dtype": "complex64"}, "pixel type 'complex64'"),
        ({"dtype": "nonsense"}, "pixel type 'nonsense'"),
        ({"height": 0}, "at least 1"),
        ({"height": 10**6, "width": 10**6}, "at most"),
    ],
)
def test_bad_cameras_are_refused(tmp_path, make, changes, match):
    camera = dataclasses.replace(make.header().cameras[0], **changes)
    with pytest.raises(SessionRefused, match=match):
        SessionWriter(tmp_path / "s.h5", make.header(cameras=(camera,)))


def test_an_unknown_pixel_size_leaves_axes_in_pixels(tmp_path, make):
    camera = dataclasses.replace(make.header().cameras[0], pixel_size_m=float("nan"))
    path = tmp_path / "s.h5"
    with SessionWriter(path, make.header(cameras=(camera,))):
        pass
    with Session.open(path) as session:
        assert session.attributes("frames/camera/x")["units"] == "px"
        assert np.isnan(session.attributes("frames/camera")["pixel_size"])


def test_attributes_of_each_kind_come_back(tmp_path, make):
    path = tmp_path / "s.h5"
    values = {
        "text": "µ",
        "true": True,
        "whole": 2**60,
        "real": 1e-12,
        "texts": ("a", "b"),
        "wholes": (1, 2),
        "reals": (0.5, 1.5),
    }
    with SessionWriter(path, make.header()) as writer:
        writer.put_attributes("instrument/smu", values)
        with pytest.raises(SessionRefused, match="too long"):
            writer.put_attributes("sample", {"x": "x" * 70_000})
        with pytest.raises(SessionRefused, match="cannot be stored"):
            writer.put_attributes("sample", {"x": object()})
    with Session.open(path) as session:
        found = session.attributes("instrument/smu")
    assert {name: found[name] for name in values} == values
    assert {name: type(found[name]) for name in values} == {
        name: type(value) for name, value in values.items()
    }


def test_details_of_an_event_always_become_json():
    text = event_json(
        {
            "nan": float("nan"),
            "array": np.arange(2),
            "scalar": np.float64(0.5),
            "set": {1},
            "nested": {"x": (1, None)},
            "other": object,
        }
    )
    assert '"nan": null' in text
    assert '"array": [0, 1]' in text
    assert '"scalar": 0.5' in text
    assert '"nested": {"x": [1, null]}' in text
    assert event_json(None) == "{}"


def test_a_table_names_what_it_has(write_session):
    with Session.open(write_session()) as session:
        table = session.table("samples")
        assert "voltage" in table
        with pytest.raises(KeyError, match="no column 'volts'"):
            table["volts"]
        with pytest.raises(SessionRefused, match="there is camera"):
            session.frames("other")
        with pytest.raises(SessionRefused, match="not a table"):
            session.table("title")
        with pytest.raises(SessionRefused, match="has no 'nothing'"):
            session.table("nothing")
        assert session.has("samples/voltage")
        assert not session.has("ledger")
