"""Velox files, synthetic: HDF5 with the groups and the JSON of a real Ceta stack."""

import h5py
import numpy as np
import pytest

from cameras.files.recording import FrameFileError, read_frames
from cameras.files.velox import read
from cameras.records import StampKind
from tests.cameras.files.writers import EPOCH_NS, EPOCH_S, pictures, velox, velox_json

# The two stamps of the public test stack, and one after a loss.
STAMPS_US = [1_575_540_226_238_991, 1_575_540_227_038_967, 1_575_540_228_638_919]


def told(series, text):
    return any(text in sentence for sentence in series.assumptions)


def stack(path, frames=None, stamps=STAMPS_US, **others):
    frames = pictures(3) if frames is None else frames
    return velox(path, frames, [velox_json(us) for us in stamps], **others)


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32"])
def test_every_frame_has_its_own_stamp_and_not_only_the_first(tmp_path, dtype):
    frames = pictures(3, dtype=dtype)
    series = read_frames([stack(tmp_path / "a.emd", frames)])
    assert (len(series), series.height, series.width, series.dtype) == (3, 4, 6, dtype)
    np.testing.assert_array_equal(np.stack(list(series.frames())), frames)
    stamps = series.stamps
    assert stamps.raw.tolist() == STAMPS_US
    assert stamps.device_ns.tolist() == [us * 1000 for us in STAMPS_US]
    assert stamps.exposure_ns.tolist() == [800_000_000] * 3
    assert (stamps.clock, stamps.kind) == ("camera UTC", StampKind.UNKNOWN)
    assert (stamps.resolution_ns, stamps.computed) == (1000, False)


def test_the_movie_is_taken_where_single_images_lie_beside_it(tmp_path):
    velox(tmp_path / "a.emd", pictures(1), [velox_json()], name="0" * 32)
    path = stack(tmp_path / "a.emd", lookup=4)
    series = read([path])
    assert len(series) == 3
    assert told(series, f"holds 2 series: {'a' * 32} of 3 frames was taken")
    assert told(series, "FrameLookupTable has 4 entries for 3 frames")


def test_a_scan_has_computed_times_that_are_marked_so(tmp_path):
    texts = [velox_json(exposure_s="no", frame_time_s="0.31457285")] * 3
    series = read([velox(tmp_path / "a.emd", pictures(3), texts)])
    stamps = series.stamps
    assert stamps.computed
    assert stamps.device_ns.tolist() == [EPOCH_NS + i * 314_572_850 for i in range(3)]
    assert stamps.raw.tolist() == [EPOCH_S] * 3
    assert stamps.exposure_ns is None
    assert told(series, "frames have no stamps; times are computed")


@pytest.mark.parametrize("text", [velox_json(), velox_json(start_s=0, frame_time_s="1"), "[]"])
def test_without_start_and_period_there_are_no_times(tmp_path, text):
    series = read([velox(tmp_path / "a.emd", pictures(2), [text] * 2)])
    assert series.stamps is None


def test_odd_properties_are_no_stamps(tmp_path):
    odd = velox_json(5).replace('"value": "5"', '"value": "soon"')
    assert read([velox(tmp_path / "a.emd", pictures(1), [odd])]).stamps is None
    listed = velox_json().replace('"CustomProperties": {}', '"CustomProperties": "none"')
    assert read([velox(tmp_path / "b.emd", pictures(1), [listed])]).stamps is None


def test_metadata_of_fewer_frames_are_told_or_refused(tmp_path):
    with pytest.raises(FrameFileError, match="only 2 of its 3 frames have a stamp"):
        read([stack(tmp_path / "a.emd", stamps=STAMPS_US[:2])])
    series = read([velox(tmp_path / "b.emd", pictures(3), [velox_json()])])
    assert told(series, "Metadata has 1 entries for 3 frames")
    assert read([velox(tmp_path / "c.emd", pictures(3), [])]).stamps is None


def test_stamps_that_run_backwards_are_refused(tmp_path):
    with pytest.raises(FrameFileError, match=r"a\.emd: frame 2 .*ns before"):
        read([stack(tmp_path / "a.emd", stamps=[STAMPS_US[i] for i in (0, 2, 1)])])


def test_damaged_metadata_are_refused_with_their_frame(tmp_path):
    path = velox(tmp_path / "a.emd", pictures(2), [velox_json(1), velox_json(2)[:-9]])
    with pytest.raises(FrameFileError, match=r"frame 1 .*its metadata are damaged"):
        read([path])


def test_files_that_are_no_velox_stack_are_refused(tmp_path):
    (tmp_path / "a.emd").write_bytes(b"no HDF5")
    with pytest.raises(FrameFileError, match=r"a\.emd: cannot be read as HDF5"):
        read([tmp_path / "a.emd"])
    with h5py.File(tmp_path / "b.emd", "w") as file:
        file["data/stack"] = np.zeros(3)
    with pytest.raises(FrameFileError, match="no Velox file with images"):
        read([tmp_path / "b.emd"])
    with h5py.File(tmp_path / "c.emd", "w") as file:
        file["Data/Image"] = np.zeros(3)
    with pytest.raises(FrameFileError, match="no Velox file with images"):
        read([tmp_path / "c.emd"])
    complex_path = velox(tmp_path / "d.emd", pictures(2).astype("c8"), [velox_json()] * 2)
    with pytest.raises(FrameFileError, match="holds complex64"):
        read([complex_path])


def test_a_series_that_goes_away_is_told(tmp_path):
    path = stack(tmp_path / "a.emd")
    series = read([path])
    path.unlink()
    with pytest.raises(FrameFileError, match=r"a\.emd: frame 1 .*is damaged"):
        series.load(1)


@pytest.mark.parametrize("name", ["Data", "Metadata"])
@pytest.mark.parametrize("kind", ["link", "virtual", "external", "shape", "huge"])
def test_data_from_elsewhere_or_of_no_size_are_refused(tmp_path, name, kind):
    path = velox(tmp_path / "a.emd", pictures(2), [velox_json(), velox_json()])
    with h5py.File(path, "r+") as file:
        series = file[f"Data/Image/{'a' * 32}"]
        del series[name]
        if kind == "link":
            series[name] = h5py.ExternalLink("/etc/passwd", "/")
        elif kind == "virtual":
            layout = h5py.VirtualLayout(shape=(4, 6, 2)[: 3 if name == "Data" else 2], dtype="u1")
            layout[...] = h5py.VirtualSource("/etc/other.h5", "x", shape=layout.shape)
            series.create_virtual_dataset(name, layout)
        elif kind == "external":
            shape = (4, 6, 2)[: 3 if name == "Data" else 2]
            series.create_dataset(name, shape, "u1", external=[("/etc/passwd", 0, 48)])
        elif kind == "shape":
            series[name] = 1
        else:
            shape = (2**20, 2**20, 2)[: 3 if name == "Data" else 2]
            series.create_dataset(name, shape, "u1", chunks=(1,) * len(shape))
    with pytest.raises(FrameFileError, match=rf"a\.emd.*{name}"):
        read([path])
