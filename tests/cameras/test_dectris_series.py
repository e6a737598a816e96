"""From messages to frames: the counter, the stamps, and what is told in plain words."""

import queue
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import cbor2
import numpy as np
import pytest

from cameras.dectris_series import SeriesReader
from cameras.dectris_stream import Film
from cameras.records import CameraInfo, Frame, FrameFault
from mocks.dectris_wire import array_item, image_message, message

INFO = CameraInfo(
    model="a detector",
    height=4,
    width=6,
    dtype="uint16",
    frame_rate_Hz=100.0,
    pixel_size_m=1e-9,
)
BASE_HZ = 50_000_000
PERIOD = 500_000  # ticks: 10 ms
DATE = datetime(2026, 3, 1, 12, tzinfo=UTC)


def pixels_of(number, dtype="uint16", shape=(4, 6)):
    return (np.arange(shape[0] * shape[1]).reshape(shape) + 100 * number).astype(dtype)


def start(series=1, channels=("threshold_1",)):
    return message("start", series, channels=list(channels))


def end(series=1):
    return message("end", series)


def image(image_id, series=1, *, at=None, date=DATE, data=None, base_Hz=BASE_HZ, **what):
    first = (image_id if at is None else at) * PERIOD
    if data is None:
        item = array_item(pixels_of(image_id, **what), "bslz4")
        data = {"threshold_1": item}
    ticks = (first, first + PERIOD - 5)
    return image_message(series, image_id, ticks, data, base_Hz=base_Hz, series_date=date)


class Reading:
    """Everything that a stream of messages gives."""

    def __init__(self, *messages, armed=1, info=INFO, buffers=None):
        self.reader = SeriesReader(info, armed)
        self.items = [
            item
            for number, raw in enumerate(messages)
            for item in self.reader.read(raw, 1000 + number, buffers)
        ]
        self.frames = [item for item in self.items if isinstance(item, Frame)]
        self.faults = [item for item in self.items if isinstance(item, FrameFault)]
        self.index = [frame.info.index for frame in self.frames]
        self.lost = [frame.info.dropped_before for frame in self.frames]
        self.starts_ns = [frame.info.device_start_ns for frame in self.frames]

    @property
    def reasons(self):
        return [fault.reason for fault in self.faults]

    def holds_together(self):
        """Tell whether counter and stamps rise, and every gap adds up, as a session demands."""
        assert all(np.diff(self.index) > 0)
        assert all(np.diff(self.starts_ns) > 0)
        assert (np.diff(self.index) - 1).tolist() == self.lost[1:]
        return True


def test_images_become_frames_with_their_times():
    found = Reading(start(), *map(image, range(4)), end())
    assert not found.faults
    assert found.reader.ended
    assert found.index == [0, 1, 2, 3]
    assert found.starts_ns == [0, 10_000_000, 20_000_000, 30_000_000]
    assert {f.info.exposure_ns for f in found.frames} == {9_999_900}
    assert [f.info.arrival_ns for f in found.frames] == [1001, 1002, 1003, 1004]
    for number, frame in enumerate(found.frames):
        np.testing.assert_array_equal(frame.pixels, pixels_of(number))
        assert not frame.info.blanked


def test_gaps_are_losses():
    found = Reading(start(), *map(image, (2, 3, 7, 8, 9, 20)))
    assert found.lost == [2, 0, 3, 0, 0, 10]
    assert found.holds_together()
    assert not found.faults


def test_what_came_before_we_listened_was_never_lost():
    found = Reading(*map(image, (517, 518, 520)), armed=None)
    assert found.lost == [0, 0, 1]
    # With the start of the series we were there from its beginning.
    assert Reading(start(), image(2), armed=None).lost == [2]


def test_pixels_go_into_the_buffers_that_are_lent():
    lent = [np.zeros((4, 6), "uint16") for _ in range(3)]

    class Buffers:
        def __init__(self):
            self.left = iter(lent)

        def take(self):
            return next(self.left)

    bad = image(1, shape=(2, 6))
    found = Reading(start(), image(0), bad, image(2), buffers=Buffers())
    assert [frame.pixels is buffer for frame, buffer in zip(found.frames, lent, strict=False)] == [
        True,
        True,
    ]
    np.testing.assert_array_equal(lent[1], pixels_of(2))
    assert not lent[2].any()  # a fault takes no buffer


# --- a second listener --------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [2, 3, 5])
def test_a_stride_is_told_once_as_a_second_listener(stride):
    found = Reading(start(), *map(image, range(0, 20 * stride, stride)))
    (fault,) = found.faults
    assert f"only one image in {stride} arrives" in fault.reason
    assert "another listener is connected" in fault.reason
    assert "Disconnect it" in fault.reason
    assert fault.index == 3 * stride
    assert found.lost == [0] + [stride - 1] * 19
    assert found.holds_together()


def test_a_listener_that_comes_and_goes_is_told_each_time():
    ids = [0, 1, 2, 4, 6, 8, 10, 11, 12, 14, 16, 18, 20]
    assert len(Reading(start(), *map(image, ids)).faults) == 2


@pytest.mark.parametrize("ids", [(0, 1, 3, 5, 6, 8, 10, 11), (0, 5, 6, 11, 12), (0, 2, 5, 7, 10)])
def test_single_losses_are_no_second_listener(ids):
    assert not Reading(start(), *map(image, ids)).faults


def test_images_that_came_and_were_wrong_are_no_second_listener():
    raws = [
        image(i) if i % 2 else image(i, data={"threshold_1": cbor2.CBORTag(40, [[4], 0])})
        for i in range(20)
    ]
    raws[4] = raws[6] = message("image", 1, image_id=4)
    found = Reading(start(), *raws)
    assert not any("listener" in reason for reason in found.reasons)
    assert found.holds_together()


# --- what cannot be a frame ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "index", "why"),
    [
        (image(2, shape=(4, 4)), 2, "image 2 has shape 4 x 4 instead of 4 x 6; left out"),
        (image(2, dtype="uint32"), 2, "image 2 has pixels of type uint32 instead of uint16"),
        (
            image(2, data={"threshold_1": array_item(pixels_of(2), "bszstd")}),
            2,
            "image 2 is compressed with 'bszstd'; known are bslz4 and lz4; left out",
        ),
        (b"\xff\x00", None, "what came is 2 bytes that are no CBOR"),
        (message("image", 1, image_id=2), 2, "image 2 has no data; left out"),
        (message("image", 1), None, "what came has image_id = None, which is no counter"),
        (message("hello", 1), None, "a message of type 'hello'"),
    ],
)
def test_a_bad_image_is_a_fault_and_the_rest_goes_on(bad, index, why):
    found = Reading(start(), image(0), image(1), bad, image(3), image(4), end())
    (fault,) = found.faults
    assert (fault.index, fault.arrival_ns) == (index, 1003)
    assert why in fault.reason
    assert found.index == [0, 1, 3, 4]
    assert found.lost == [0, 0, 1, 0]
    assert found.reader.ended


def test_an_image_that_comes_again_or_late_is_left_out():
    found = Reading(start(), *map(image, (0, 1, 3, 3, 2, 4)))
    assert found.index == [0, 1, 3, 4]
    assert found.reasons == [
        "image 3 came again, or late; left out",
        "image 2 came again, or late; left out",
    ]
    assert found.holds_together()


def test_a_bad_image_before_the_first_good_one_is_told():
    found = Reading(message("image", 1, image_id=3), image(4))
    assert (found.faults[0].index, found.index) == (3, [4])


# --- channels -----------------------------------------------------------------------------------


def several(image_id, *names):
    return image(
        image_id,
        data={name: array_item(pixels_of(n), "lz4") for n, name in enumerate(names)},
    )


def test_the_first_channel_that_is_named_is_recorded_and_others_are_mentioned_once():
    names = ("threshold_2", "threshold_1", "difference")
    raws = [several(i, "threshold_1", "threshold_2", "difference") for i in range(3)]
    found = Reading(start(channels=names), *raws)
    (fault,) = found.faults
    assert fault.reason == (
        "the channel threshold_2 is recorded; threshold_1, difference come too and are not"
    )
    for frame in found.frames:
        np.testing.assert_array_equal(frame.pixels, pixels_of(1))


def test_without_a_start_the_first_channel_of_the_image_is_recorded():
    found = Reading(several(5, "zeta", "alpha"), several(6, "zeta", "alpha"), armed=None)
    assert found.reasons == ["the channel zeta is recorded; alpha come too and are not"]
    np.testing.assert_array_equal(found.frames[1].pixels, pixels_of(0))


def test_another_channel_is_never_recorded_unsaid():
    found = Reading(start(), several(0, "threshold_1"), several(1, "difference"))
    assert found.reasons == [
        "from here on the channel difference is recorded instead of threshold_1"
    ]


# --- series ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_start", [True, False])
def test_a_new_series_counts_on_and_its_stamps_go_on(with_start):
    later = DATE + timedelta(milliseconds=70)
    begin = [start(2)] if with_start else []
    found = Reading(
        start(1), *map(image, (0, 1, 2)), *begin, *(image(i, 2, date=later) for i in (1, 2)), end(2)
    )
    (fault,) = found.faults
    assert "series 2 began while series 1 was recorded" in fault.reason
    assert "count on from 3" in fault.reason
    assert fault.index == 3
    assert found.index == [0, 1, 2, 4, 5]
    assert found.lost == [0, 0, 0, 1, 0]
    assert found.starts_ns == [0, 10_000_000, 20_000_000, 80_000_000, 90_000_000]
    assert found.holds_together()
    assert found.reader.ended


def test_a_third_series_counts_on_from_the_second():
    dates = [DATE + timedelta(milliseconds=100 * n) for n in range(3)]
    raws = [image(i, n + 1, date=dates[n]) for n in range(3) for i in range(2)]
    found = Reading(start(1), *raws)
    assert found.index == [0, 1, 2, 3, 4, 5]
    assert found.starts_ns == [1_000_000 * t for t in (0, 10, 100, 110, 200, 210)]
    assert len(found.faults) == 2


def changed(raw, **fields):
    message = {**cbor2.loads(raw), **fields}
    kept = {name: value for name, value in message.items() if value is not ...}
    return cbor2.dumps(kept, default=lambda encoder, value: encoder.encode(dict(value)))


@pytest.mark.parametrize("date", [DATE, DATE - timedelta(days=1), ...])
def test_dates_that_cannot_be_place_a_new_series_right_behind_the_old_one(date):
    second = [changed(image(i, 2), series_date=date) for i in (0, 1)]
    found = Reading(start(1), image(0), image(1), *second)
    assert found.starts_ns == [0, 10_000_000, 19_999_900, 29_999_900]
    assert "do not place image 0 behind the last one" in found.reasons[1]
    assert found.faults[1].index == 2
    assert found.holds_together()


def test_a_new_series_is_known_by_its_unique_number_too():
    raw = changed(image(0, 1, at=9), series_unique_id="another")
    found = Reading(start(1), image(0), raw)
    assert "series 1 began while series 1" in found.reasons[0]


def test_a_counter_that_begins_anew_counts_on():
    found = Reading(start(), *map(image, (0, 1, 2, 3)), *(image(i, at=i + 4) for i in (0, 1, 3)))
    assert found.index == [0, 1, 2, 3, 4, 5, 7]
    assert found.lost == [0, 0, 0, 0, 0, 0, 1]
    assert found.starts_ns[4:] == [40_000_000, 50_000_000, 70_000_000]
    (fault,) = found.faults
    assert "counter fell from 3 to 0 while its time went on" in fault.reason
    assert found.holds_together()


def test_a_time_base_that_changes_is_told_and_the_frames_are_kept():
    found = Reading(
        start(), image(0), image(1), image(2, base_Hz=40_000_000), image(3, base_Hz=40_000_000)
    )
    assert found.index == [0, 1, 2, 3]
    (fault,) = found.faults
    assert "ticks of 40000000 Hz instead of 50000000 Hz" in fault.reason


def test_messages_of_an_old_series_are_left_out_and_told_once():
    old = [image(900, 6), image(901, 6), end(6), image(3, 5)]
    found = Reading(*old, start(7), image(0, 7), image(1, 7), end(7), armed=7)
    assert found.index == [0, 1]
    assert found.lost == [0, 0]
    assert [fault.index for fault in found.faults] == [None, None]
    assert "messages of series 6 were still in the detector's queue" in found.reasons[0]
    assert "messages of series 5" in found.reasons[1]
    assert found.reader.ended


def test_an_old_end_does_not_end_what_has_not_begun():
    found = Reading(end(3), start(4), image(0, 4), armed=None)
    assert not found.reader.ended
    assert "the end of series 3 came, of which nothing else was seen" in found.reasons[0]
    assert found.index == [0]


def test_the_end_of_another_series_does_not_end_this_one():
    found = Reading(start(4), image(0, 4), end(3), image(1, 4), armed=None)
    assert not found.reader.ended
    assert "the end of series 3 came while series 4 is recorded" in found.reasons[0]
    assert found.index == [0, 1]


def test_the_end_of_a_series_whose_images_all_went_elsewhere_ends_it():
    assert Reading(end(7), armed=7).reader.ended


# --- the end of listening -----------------------------------------------------------------------


async def test_listening_ends_with_the_last_message_before_the_stop():
    received = queue.Queue()
    for image_id, arrival_ns in enumerate((50, 100, 101, 102)):
        received.put((image(image_id), arrival_ns))
    link = SimpleNamespace(received=received)
    film = Film(link, SeriesReader(INFO, None), now_ns=lambda: 100)
    film.stop(0)
    film.stop(60)  # the first word counts
    assert [frame.info.index async for frame in film.frames(None)] == [0, 1]
    assert received.qsize() == 1  # of a microscope that goes on for ever


async def test_a_film_that_we_end_takes_what_comes_until_the_end_of_the_series():
    received = queue.Queue()
    for raw in (image(0), image(1), end(), image(2)):
        received.put((raw, 101))
    film = Film(SimpleNamespace(received=received), SeriesReader(INFO, 1), now_ns=lambda: 100)
    film.stop(60)
    film.note("the lid is open")
    items = [item async for item in film.frames(None)]
    assert [item.reason for item in items if isinstance(item, FrameFault)] == ["the lid is open"]
    assert [item.info.index for item in items if isinstance(item, Frame)] == [0, 1]
