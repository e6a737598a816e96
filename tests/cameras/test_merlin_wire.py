"""Messages and headers of a Merlin detector: read whole, numbered, or said to be wrong."""

import asyncio
import socket
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cameras import merlin_wire
from cameras.errors import CameraError, CameraLost, FramingLost
from cameras.merlin_frames import FrameCount
from cameras.merlin_wire import (
    ConnectionCut,
    MerlinControl,
    MessageReader,
    RefusedCommand,
    body_bytes,
    connect_data,
    drain,
    message,
)
from cameras.mib_header import parse_mib_header, stamp_ns
from cameras.open_port import LOOPBACK, open_port
from mocks.merlin_wire import framed, mib_header, stamp_text

CHIP = "3RX,175,511,000,000,000,000,000,000,125,255,125,125,100,100,082,100,087,030,128"
QUAD = (
    "MQ1,000017,00768,04,0514,0514,U16,  2x2G,0F,2024-06-14 11:31:30.060732,0.001000,0,0,0,"
    f"3.500000E+1,5.110000E+2,{CHIP},{CHIP},{CHIP},{CHIP},"
    "MQ1A,2024-06-14T09:31:30.060732344Z,1000000ns,12,"
)


# --- headers -----------------------------------------------------------------------------------


def test_a_header_is_read_field_by_field():
    found = parse_mib_header(QUAD.encode().ljust(768) + b"\xff\xfe" * 8)
    assert (found.sequence, found.sequence_digits, found.header_bytes) == (17, 6, 768)
    assert (found.chips, found.height, found.width, found.layout) == (4, 514, 514, "2x2G")
    assert (found.pixel_code, found.dtype, found.pixel_bytes) == ("U16", "uint16", 514 * 514 * 2)
    # date -u -d 2024-06-14T09:31:30 +%s
    assert found.stamp_ns == 1_718_357_490_060_732_344
    assert found.stamp_text == "2024-06-14T09:31:30.060732344Z"
    assert found.stamp_is_utc
    assert (found.exposure_ns, found.counter_depth) == (1_000_000, 12)


@pytest.mark.parametrize("end", ["12", "12,", "12,   ", "12\n"])
def test_the_tail_may_end_in_several_ways(end):
    text = QUAD.removesuffix("12,") + end
    assert parse_mib_header(text.encode().ljust(768, b"\0")).counter_depth == 12


def test_without_a_tail_the_local_time_is_taken_and_said_to_be_local():
    text = QUAD[: QUAD.index("MQ1A")]
    found = parse_mib_header(text.encode().ljust(768, b"\0"))
    assert not found.stamp_is_utc
    assert found.stamp_ns == 1_718_364_690_060_732_000  # two hours on, to the microsecond
    assert (found.exposure_ns, found.counter_depth) == (1_000_000, None)


def test_raw_pixels_have_no_type_that_is_read():
    found = parse_mib_header(QUAD.replace("U16", "R64").encode().ljust(768))
    assert found.dtype is None
    assert found.pixel_bytes is None


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("MQ1,", "MQ2,", "is not the beginning"),
        ("00768", "seven", "invalid literal"),
        ("00768", "00999", "768 of 999 bytes"),
        ("000017", "first", "the counter is .first."),
        ("0514,0514", "0000,0514", "514 x 0 pixels"),
        ("0514,0514", "0514,-001", "-1 x 514 pixels"),
        ("1000000ns", "1000000us", "has no unit"),
        ("1000000ns", "-000001ns", "an exposure of -1 ns"),
        ("09:31:30.060732344Z", "09:61:30.060732344Z", "is no time"),
        ("09:31:30.060732344Z", "09-31-30.060732344Z", "is no time"),
        ("09:31:30.060732344Z", "09:31:30.0607323440Z", "is no time"),
        ("T09:31:30", "X09:31:30", "is no time"),
        ("2024-06-14T", "2024-06-31T", "cannot be read"),
        (",12,", ",twelve,", "cannot be read"),
        ("3RX", "3R\xfc", "cannot be read"),
    ],
)
def test_a_header_that_makes_no_sense_says_why(old, new, why):
    assert old in QUAD
    text = QUAD.replace(old, new, 1) if old != ",12," else QUAD.removesuffix(old) + new
    with pytest.raises(FramingLost, match=why):
        parse_mib_header(text.encode("latin1").ljust(768))


def test_an_exposure_that_is_no_number_is_refused():
    text = QUAD[: QUAD.index("MQ1A")]
    for wrong in ("inf", "nan", "x"):
        data = text.replace("0.001000", wrong).encode().ljust(768)
        with pytest.raises(FramingLost):
            parse_mib_header(data)


@given(st.integers(0, 4_102_444_799_999_999_999), st.integers(1, 9))
def test_a_stamp_is_exact_to_the_last_digit(t_ns, digits):
    text = stamp_text(t_ns, digits=digits)
    assert stamp_ns(text) == t_ns // 10 ** (9 - digits) * 10 ** (9 - digits)
    assert stamp_ns(text.replace(" ", "T") + "Z") == stamp_ns(text)


# --- messages ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix", [b"MPX,0000000001,", b"MPX,000000001,X", b"MPX 0000000010,", b"MPX,9999999999,"]
)
def test_a_prefix_that_cannot_be_is_lost_framing(prefix):
    with pytest.raises(FramingLost):
        body_bytes(prefix)


def test_the_length_counts_the_comma_before_the_body():
    assert message("GET,X,0") == b"MPX,0000000008,GET,X,0"
    assert body_bytes(b"MPX,0000000008,") == 7


class Chunks:
    """A socket whose bytes come in portions."""

    def __init__(self, data, sizes):
        self.data, self.sizes = data, iter(sizes)

    def recv_into(self, buffer, nbytes=0, flags=0):
        count = min(next(self.sizes, 10**6), len(buffer), len(self.data))
        buffer[:count] = self.data[:count]
        self.data = self.data[count:]
        return count


@given(
    st.lists(st.binary(min_size=1, max_size=60), max_size=6),
    st.lists(st.integers(1, 40), max_size=60),
    st.integers(0, 60),
)
def test_any_portions_of_the_stream_are_the_same_messages(bodies, sizes, at):
    reader = MessageReader(Chunks(b"".join(map(framed, bodies)), sizes))
    found = []
    for _ in bodies:
        length = reader.begin()
        body = bytearray(length)
        reader.fill(memoryview(body)[:at])
        if at < length:
            reader.fill(memoryview(body)[at:])
        found.append(bytes(body))
    assert found == bodies
    with pytest.raises(ConnectionCut, match="between messages"):
        reader.begin()


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(0, 214))
def test_a_message_that_passes_leaves_the_next_one_whole(sizes, cut):
    stream = framed(b"x" * 100_00) + framed(b"next")
    reader = MessageReader(Chunks(stream, sizes))
    reader.skip(reader.begin())
    assert reader.begin() == 4
    short = MessageReader(Chunks(framed(b"y" * 200)[:cut], sizes))
    with pytest.raises(ConnectionCut) as ended:
        short.skip(short.begin())
    assert ended.value.in_message is (cut > 0) or cut == 15


def test_a_socket_that_fails_is_a_cut_connection():
    class Reset:
        def recv_into(self, *_):
            raise ConnectionResetError

    with pytest.raises(ConnectionCut):
        MessageReader(Reset()).begin()


def test_what_is_there_already_is_drained_and_what_goes_on_is_refused():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"x" * 1000)
        assert drain(ours, quiet_s=0.01, longest_s=60) == 1000
        assert ours.gettimeout() is None
        with pytest.raises(CameraError, match="acquisition runs already"):
            drain(ours, quiet_s=0.01, longest_s=0)
        theirs.close()
        with pytest.raises(ConnectionCut):
            drain(ours, quiet_s=0.01, longest_s=60)


def test_a_buffer_that_the_system_does_not_give_is_not_asked_for(monkeypatch):
    asked = []

    class Small(socket.socket):
        def setsockopt(self, *option):
            asked.append(option)

        def getsockopt(self, *_):
            return 4096

    monkeypatch.setattr(merlin_wire.socket, "socket", Small)
    listening = socket.create_server(("127.0.0.1", 0))
    with listening, connect_data(*listening.getsockname(), 5.0):
        assert len(asked) <= 2  # the probe's, and that of the server itself
    assert not merlin_wire._room_is_given()


# --- the control port --------------------------------------------------------------------------


@asynccontextmanager
async def controlled(*replies, timeout_s=5.0):
    told = []
    over = asyncio.Event()

    async def serve(reader, writer):
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            for reply in replies:
                prefix = await reader.readexactly(15)
                told.append(await reader.readexactly(int(prefix[4:14]) - 1))
                for part in reply if isinstance(reply, tuple) else (reply,):
                    writer.write(part)
                    await writer.drain()
            if replies[-1] == b"":
                await reader.read()
        over.set()

    async with open_port(serve) as port:
        control = MerlinControl("the Merlin", timeout_s=timeout_s)
        await control.connect(LOOPBACK, port)
        try:
            yield control, told
        finally:
            await control.close()
            await over.wait()


async def test_commands_and_their_replies():
    replies = (
        framed(b"GET,IMAGEX,256,0"),
        (framed(b"SET,COUNTERDEPTH,0")[:9], framed(b"SET,COUNTERDEPTH,0")[9:]),
        framed(b"CMD,SOFTTRIGGER,0") + framed(b"GET,SOFTWAREVERSION,a,b,0"),
        b"",
    )
    async with controlled(*replies) as (control, told):
        assert await control.get("IMAGEX") == "256"
        await control.set("COUNTERDEPTH", "12")
        await control.command("SOFTTRIGGER")
        # Two replies came in one piece: each is taken by its length.
        assert await control.get("SOFTWAREVERSION") == "a,b"
    assert told[:3] == [b"GET,IMAGEX,0", b"SET,COUNTERDEPTH,12", b"CMD,SOFTTRIGGER,0"]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (1, "is busy SET GAIN 7 .code 1.; an acquisition runs"),
        (2, "does not know SET GAIN 7 .code 2."),
        (3, "says out of range to SET GAIN 7 .code 3."),
        (9, "refuses SET GAIN 7 .code 9."),
    ],
)
async def test_a_code_names_the_variable_and_the_value(code, why):
    async with controlled(framed(b"SET,GAIN,%d" % code)) as (control, _):
        with pytest.raises(RefusedCommand, match=why) as refused:
            await control.set("GAIN", "7")
        assert refused.value.code == code


@pytest.mark.parametrize(
    "body", [b"GET,IMAGEY,256,0", b"SET,IMAGEX,0", b"GET,IMAGEX,256", b"GET,IMAGEX,0", b"hello"]
)
async def test_a_reply_to_something_else_is_never_taken(body):
    async with controlled(framed(body)) as (control, _):
        with pytest.raises(FramingLost, match="answered GET IMAGEX with"):
            await control.get("IMAGEX")


async def test_a_reply_that_is_no_message_is_lost_framing():
    async with controlled(b"SSH-2.0-OpenSSH_9.6\r\n") as (control, _):
        with pytest.raises(FramingLost, match="control port says"):
            await control.get("IMAGEX")


async def test_a_control_port_that_hangs_up_or_stays_silent_is_a_lost_camera():
    async with controlled(framed(b"GET,IMAGEX,256,0")[:20]) as (control, _):
        with pytest.raises(CameraLost, match="ended at GET IMAGEX"):
            await control.get("IMAGEX")
    async with controlled(b"", timeout_s=0.1) as (control, _):
        with pytest.raises(CameraLost, match="no reply to GET IMAGEX in 0.1 s"):
            await control.get("IMAGEX")
        with pytest.raises(CameraLost, match="is not connected"):
            await control.get("IMAGEX")  # what comes late is nobody's


# --- the counter ---------------------------------------------------------------------------------


def header(counter, t_ns=None, digits=6, **changes):
    shape = {"height": 4, "width": 5, "code": "U08", "depth": 6, **changes}
    at_ns = 10**18 + counter * 1_000_000 if t_ns is None else t_ns
    data = mib_header(counter, stamp_ns=at_ns, exposure_ns=900_000, **shape)
    if digits == 6:
        return parse_mib_header(data)
    wide = data.replace(b"MQ1,%06d" % counter, b"MQ1,%0*d" % (digits, counter))
    return parse_mib_header(wide[:384])


def new_count(*, header_seen=True):
    count = FrameCount(height=4, width=5, dtype="uint8")
    assert count.index is None
    if header_seen:
        assert count.begin_acquisition() is None
    return count


def places(count, *headers):
    return [(p.index, p.dropped_before) for p in map(count.place, headers)]


def test_gaps_are_losses_and_repeats_and_late_frames_are_not():
    count = new_count()
    found = places(count, *map(header, (1, 2, 5, 5, 4, 6, 9)))
    assert found == [(1, 0), (2, 0), (5, 2), (5, 0), (4, 0), (6, 0), (9, 2)]
    assert count.index == 9


def test_what_lacks_before_the_first_frame_is_lost_only_where_the_beginning_was_seen():
    assert places(new_count(), header(4)) == [(4, 3)]
    assert places(new_count(header_seen=False), header(700_000)) == [(700_000, 0)]


def test_an_acquisition_header_that_is_repeated_changes_nothing():
    count = new_count()
    assert count.begin_acquisition() is None
    assert places(count, header(1)) == [(1, 0)]


@pytest.mark.parametrize(("after", "lost"), [(0, 0), (1, 1), (3, 3)])
def test_a_counter_of_six_digits_goes_on_after_its_wrap(after, lost):
    count = new_count(header_seen=False)
    step = 1_000_000
    before = [header(n, n * step) for n in (999_998, 999_999)]
    found = places(count, *before, header(after, (1_000_000 + after) * step))
    assert found == [(999_998, 0), (999_999, 0), (1_000_000 + after, lost)]
    # One that comes late belongs before the wrap.
    assert places(count, header(999_997, 999_997 * step)) == [(999_997, 0)]
    assert places(count, header(after + 1, (1_000_001 + after) * step)) == [(1_000_001 + after, 0)]


def test_a_counter_that_begins_at_1_again_has_lost_nothing_where_the_stamps_say_so():
    count = new_count(header_seen=False)
    step = 1_000_000
    near = [header(n, n * step) for n in (999_998, 999_999)]
    found = places(count, *near, header(1, 1_000_000 * step), header(2, 1_000_001 * step))
    assert found[2:] == [(1_000_000, 0), (1_000_001, 0)]
    assert places(count, header(999_999, 999_999 * step)) == [(999_999, 0)]


def test_a_longer_counter_does_not_wrap():
    count = new_count(header_seen=False)
    found = places(count, header(999_999, digits=7), header(1_000_000, digits=7))
    assert found == [(999_999, 0), (1_000_000, 0)]


def test_a_new_acquisition_counts_on_and_is_told():
    count = new_count()
    assert places(count, header(1), header(2)) == [(1, 0), (2, 0)]
    assert "after frame 2" in count.begin_acquisition()
    found = places(count, header(1, 2 * 10**18), header(3, 2 * 10**18 + 5))
    assert found == [(3, 0), (5, 1)]


def test_a_stamp_that_runs_back_is_told_and_the_frame_kept():
    count = new_count()
    first, back, on = header(1, 5_000), header(2, 4_000), header(3, 4_500)
    assert count.place(first).problems == ()
    place = count.place(back)
    assert place.usable
    assert "frame 2" in place.problems[0]
    assert "is 1000 ns before that of frame 1" in place.problems[0]
    assert count.place(on).problems == ()  # the clock goes on from where it was set
    assert count.place(header(4, 4_500)).problems  # it stands
    # A frame that comes late has an earlier stamp by right.
    assert count.place(header(3, 4_500)).problems == ()


def test_a_frame_of_another_kind_is_left_out_and_lacks_before_the_next():
    count = new_count()
    for counter, changes in enumerate(({"height": 2}, {"code": "U16"}, {"code": "R64"}), 1):
        place = count.place(header(counter, **changes))
        assert not place.usable
        assert "announced 4 x 5 uint8" in place.problems[0]
    assert "R64" in place.problems[0]
    assert places(count, header(5)) == [(5, 4)]


def test_local_time_is_told_once():
    count = new_count()
    data = mib_header(
        1, height=4, width=5, code="U08", depth=6, stamp_ns=10**18, exposure_ns=1000
    ).replace(b"MQ1A", b"MQ1B")
    assert "no UTC time" in count.place(parse_mib_header(data)).problems[0]
    later = data.replace(b"MQ1,000001", b"MQ1,000002").replace(b":40.0", b":41.0")
    assert not any("UTC" in each for each in count.place(parse_mib_header(later)).problems)
