"""Stream v2 on the wire: messages built byte by byte, and every way to be wrong."""

import math
import struct
from fractions import Fraction

import cbor2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cameras import dectris_messages
from cameras.dectris_messages import (
    BadMessage,
    Compressed,
    EndMessage,
    ImageMessage,
    SeriesKey,
    StartMessage,
    Ticks,
    decode,
    unpack,
)
from mocks.dectris_wire import array_item, compress_bslz4, compress_lz4, lz4_block

U16 = np.dtype("uint16")
PIXELS = np.arange(12, dtype="<u2").reshape(3, 4) * 1000


# --- CBOR by hand, after RFC 8949: a major type, a length, what belongs to it ------------------


def head(major, value):
    for code, form, limit in ((24, ">B", 2**8), (25, ">H", 2**16), (26, ">I", 2**32)):
        if value < 24:
            return bytes([major << 5 | value])
        if value < limit:
            return bytes([major << 5 | code]) + struct.pack(form, value)
    return bytes([major << 5 | 27]) + struct.pack(">Q", value)


def text(value):
    return head(3, len(value)) + value.encode()


def blob(value):
    return head(2, len(value)) + value


def row(*items):
    return head(4, len(items)) + b"".join(items)


def tag(number, item):
    return head(6, number) + item


def whole(value):
    return head(0, value)


def mapping(**items):
    return head(5, len(items)) + b"".join(text(k) + v for k, v in items.items() if v is not None)


def array(pixels=PIXELS, *, content=None, number=69):
    inner = blob(pixels.tobytes()) if content is None else content
    return tag(40, row(row(*map(whole, pixels.shape)), tag(number, inner)))


def image(**changes):
    fields = {
        "type": text("image"),
        "series_id": whole(4),
        "series_unique_id": text("01GRXWT80JSDY2FNW8SGCCDZD9"),
        "image_id": whole(7),
        "real_time": row(whole(499_995), whole(50_000_000)),
        "series_date": tag(0, text("2023-02-10T14:23:29.123+01:00")),
        "start_time": row(whole(3_500_000), whole(50_000_000)),
        "stop_time": row(whole(3_999_995), whole(50_000_000)),
        "data": mapping(threshold_1=array()),
        **changes,
    }
    return tag(55799, mapping(**{k: v for k, v in fields.items() if v is not ...}))


def pixels_of(raw, name="threshold_1", shape=(3, 4), dtype=U16):
    return unpack(decode(raw).data[name], *shape, dtype)


def test_an_image_built_by_hand_is_read():
    found = decode(image())
    assert isinstance(found, ImageMessage)
    assert found.series == SeriesKey(4, "01GRXWT80JSDY2FNW8SGCCDZD9")
    assert (found.image_id, found.start, found.stop) == (
        7,
        Ticks(3_500_000, 50_000_000),
        Ticks(3_999_995, 50_000_000),
    )
    assert (found.start.ns, found.exposure_ns) == (70_000_000, 9_999_900)
    assert found.series_date.isoformat() == "2023-02-10T14:23:29.123000+01:00"
    np.testing.assert_array_equal(pixels_of(image()), PIXELS)


def test_the_makers_own_end_message_is_read():
    # 69 bytes of the public test data; only the number of the series is ours.
    raw = (
        b"\xd9\xd9\xf7\xa3\x64type\x63end\x69series_id\x05"
        b"\x70series_unique_id\x78\x1a01GRXWT80JSDY2FNW8SGCCDZD9"
    )
    assert len(raw) == 69
    assert decode(raw) == EndMessage(SeriesKey(5, "01GRXWT80JSDY2FNW8SGCCDZD9"))


def test_a_start_names_its_channels_in_their_order():
    raw = mapping(
        type=text("start"),
        series_id=whole(9),
        channels=row(text("threshold_2"), text("threshold_1"), text("difference")),
        # An empty table, and a tag that nobody knows: neither is ours to judge.
        flatfield=mapping(),
        user_data=tag(4711, whole(1)),
    )
    assert decode(raw) == StartMessage(
        SeriesKey(9, ""), ("threshold_2", "threshold_1", "difference")
    )
    assert decode(mapping(type=text("start"), series_id=whole(9))).channels == ()


def test_channels_keep_their_order():
    data = mapping(zeta=array(), alpha=array(), threshold_1=array())
    assert list(decode(image(data=data)).data) == ["zeta", "alpha", "threshold_1"]


@pytest.mark.parametrize(
    ("number", "dtype"),
    [
        *((64, "u1"), (65, ">u2"), (66, ">u4"), (67, ">u8"), (68, "u1")),
        *((69, "<u2"), (70, "<u4"), (71, "<u8"), (72, "i1"), (73, ">i2"), (74, ">i4")),
        *((75, ">i8"), (77, "<i2"), (78, "<i4"), (79, "<i8"), (80, ">f2"), (81, ">f4")),
        *((82, ">f8"), (84, "<f2"), (85, "<f4"), (86, "<f8")),
    ],
)
def test_each_typed_array_of_rfc_8746_is_known(number, dtype):
    pixels = (np.arange(6) * 21).reshape(2, 3).astype(dtype)
    native = np.dtype(dtype).newbyteorder("=")
    raw = image(data=mapping(a=array(pixels, number=number)))
    found = pixels_of(raw, "a", (2, 3), native)
    assert found.dtype == native
    np.testing.assert_array_equal(found, pixels)


# --- compression, by hand and by the simulated detector ------------------------------------------


def framed(raw, block):
    """Frame one LZ4 block as the HDF5 filters do."""
    return struct.pack(">QII", len(raw), 8192, len(block)) + block


def test_lz4_that_was_written_by_hand_is_unpacked():
    # 24 bytes: four literals, then fifteen bytes from four back, then the last five.
    raw = b"abcd" * 4 + b"abcvwxyz"
    block = bytes([0x4B]) + b"abcd" + b"\x04\x00" + bytes([0x50]) + b"vwxyz"
    pixels = np.frombuffer(raw, "<u2").reshape(3, 4)
    packed = tag(56500, row(text("lz4"), whole(0), blob(framed(raw, block))))
    found = pixels_of(image(data=mapping(threshold_1=array(pixels, content=packed))))
    np.testing.assert_array_equal(found, pixels)


def test_bitshuffled_lz4_that_was_written_by_hand_is_unpacked():
    # Eight elements whose lowest bits are 1, 0, 1, 0, ...: shuffled 0x55 and 15 zeros.
    pixels = np.array([[1, 0, 1, 0], [1, 0, 1, 0]], "<u2")
    block = bytes([0xF0, 1]) + b"\x55" + bytes(15)
    raw = pixels.tobytes()
    packed = tag(56500, row(text("bslz4"), whole(2), blob(framed(raw, block))))
    found = pixels_of(image(data=mapping(threshold_1=array(pixels, content=packed))), shape=(2, 4))
    np.testing.assert_array_equal(found, pixels)


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    dtype=st.sampled_from(["uint8", "uint16", "uint32"]),
    compression=st.sampled_from(["bslz4", "lz4", "none"]),
    mean=st.sampled_from([0.0, 0.01, 1.0, 200.0]),
    seed=st.integers(0, 99),
)
def test_what_the_simulated_detector_packs_the_makers_library_unpacks(
    shape, dtype, compression, mean, seed
):
    pixels = np.random.default_rng(seed).poisson(mean, shape).astype(dtype)
    item = cbor2.dumps(array_item(pixels, compression))
    found = pixels_of(image(data=mapping(threshold_1=item)), shape=shape, dtype=np.dtype(dtype))
    np.testing.assert_array_equal(found, pixels)


def test_images_of_several_blocks_come_through_and_are_smaller():
    pixels = np.random.default_rng(1).poisson(2, (96, 200)).astype("<u2")
    for pack in (lambda raw: compress_bslz4(raw, 2), compress_lz4):
        packed = pack(pixels.tobytes())
        name = "lz4" if pack is compress_lz4 else "bslz4"
        item = tag(56500, row(text(name), whole(2), blob(packed)))
        raw = image(data=mapping(threshold_1=array(pixels, content=item)))
        np.testing.assert_array_equal(pixels_of(raw, shape=(96, 200)), pixels)
        assert len(packed) < len(pixels.tobytes()) * (0.5 if name == "bslz4" else 1.01)


def test_a_long_run_is_one_match():
    assert len(lz4_block(bytes(8192))) < 60


# --- times ----------------------------------------------------------------------------------------


@given(st.integers(0, 2**61), st.integers(1, 2**40))
def test_ticks_become_the_nearest_nanosecond_once(count, base_Hz):
    true_ns = Fraction(count, base_Hz) * 10**9
    found = Ticks(count, base_Hz).ns
    assert isinstance(found, int)
    assert -Fraction(1, 2) < found - true_ns <= Fraction(1, 2)


@given(st.integers(0, 2**50))
def test_at_50_megahertz_a_tick_is_20_ns_and_nothing_is_rounded(count):
    assert Ticks(count, 50_000_000).ns == 20 * count


@given(st.integers(0, 2**55), st.integers(1, 10**9), st.integers(1, 10**9))
def test_an_exposure_is_rounded_once_and_not_as_two_times(start, length, base_Hz):
    stop = Ticks(start + length, base_Hz)
    found = stop.since(Ticks(start, base_Hz)).ns
    assert abs(found - Fraction(length, base_Hz) * 10**9) <= Fraction(1, 2)


@given(st.integers(0, 2**60), st.integers(1, 10**9))
def test_the_ticks_come_back_from_the_nanoseconds(count, base_Hz):
    assert round(Fraction(Ticks(count, base_Hz).ns * base_Hz, 10**9)) == count or base_Hz > 5e8


# --- what cannot be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "0 bytes that are no CBOR"),
        (b"\xff\x00", "2 bytes that are no CBOR"),
        (image()[:-3], "bytes that are no CBOR"),
        (b"\x9b" + b"\xff" * 8, "no CBOR"),
        (b"\x81" * 100_000, "no CBOR"),
        (whole(7), "a int instead of a map"),
        (row(), "instead of a map"),
        (mapping(series_id=whole(1)), "a message of type None; known are start"),
        (mapping(type=text("picture")), "a message of type 'picture'"),
        (mapping(type=text("end")), "series_id = None, which is no counter"),
        (mapping(type=text("start"), series_id=text("4")), "series_id = '4'"),
        (image(image_id=...), "image_id = None, which is no counter"),
        (image(image_id=b"\x20"), "image_id = -1"),
        (image(image_id=b"\xf5"), "image_id = True"),
        (image(image_id=whole(2**62)), "is no counter"),
        (image(image_id=text("x" * 99)), r"image_id = 'x{56}\.\.\., which"),
    ],
)
def test_what_is_no_message_is_told(raw, why):
    with pytest.raises(BadMessage, match=why) as caught:
        decode(raw)
    assert caught.value.image_id is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"data": ...}, "has no data"),
        ({"data": mapping()}, "has no data"),
        ({"data": array()}, "has no data"),
        ({"series_id": ...}, "series_id = None"),
        ({"start_time": ...}, "start_time = None, which is no time"),
        ({"start_time": row(whole(1))}, "is no time"),
        ({"start_time": row(whole(1), whole(0))}, "is no time"),
        ({"start_time": row(b"\x20", whole(5))}, "is no time"),
        ({"start_time": row(b"\xf5", whole(5))}, "is no time"),
        ({"start_time": row(whole(1), text("5"))}, "is no time"),
        ({"start_time": row(whole(2**62), whole(5))}, "is no time"),
        ({"stop_time": row(whole(2**61), whole(1))}, "is no time"),
        ({"stop_time": whole(3)}, "stop_time = 3, which is no time"),
        ({"stop_time": row(whole(3_500_000), whole(50_000_000))}, "an exposure of 0 ticks"),
        ({"stop_time": row(whole(3_499_990), whole(50_000_000))}, "an exposure of -10 ticks"),
        (
            {"stop_time": row(whole(3_999_995), whole(40_000_000))},
            "begins in ticks of 50000000 Hz and ends in ticks of 40000000 Hz",
        ),
    ],
)
def test_an_image_that_makes_no_sense_is_told_with_its_number(changes, why):
    with pytest.raises(BadMessage, match=why) as caught:
        decode(image(**changes))
    assert caught.value.image_id == 7


def packed(algorithm=None, size=None, content=None, item=None):
    raw = compress_bslz4(PIXELS.tobytes(), 2)
    parts = (
        text("bslz4") if algorithm is None else algorithm,
        whole(2) if size is None else size,
        blob(raw if content is None else content),
    )
    return array(content=tag(56500, row(*parts)) if item is None else item)


WELL = compress_bslz4(PIXELS.tobytes(), 2)


@pytest.mark.parametrize(
    ("item", "why"),
    [
        (array(PIXELS[:2]), "has shape 2 x 4 instead of 3 x 4"),
        (array(PIXELS.T), "has shape 4 x 3 instead of 3 x 4"),
        (array(PIXELS.reshape(1, 3, 4)), "has shape 1 x 3 x 4 instead"),
        (tag(40, row(whole(12), tag(69, blob(PIXELS.tobytes())))), "has shape 12 instead"),
        (array(PIXELS.astype("<u4"), number=70), "pixels of type uint32 instead of uint16"),
        (array(PIXELS.astype("<i2"), number=77), "pixels of type int16 instead"),
        (array(content=blob(PIXELS.tobytes()[:-1])), "has 23 bytes of pixels instead of 24"),
        (array(content=whole(5)), "has no bytes of pixels"),
        (array(number=76), "no typed array"),
        (array(number=87), "no typed array"),
        (blob(b"x"), "no typed array"),
        (tag(40, row(whole(1))), "no typed array"),
        (tag(40, whole(1)), "no typed array"),
        (packed(algorithm=text("bszstd")), "compressed with 'bszstd'; known are bslz4 and lz4"),
        (packed(algorithm=text("trpx")), "compressed with 'trpx'"),
        (packed(algorithm=whole(1)), "compressed with 1"),
        (packed(content=b"short"), "is no bslz4 data"),
        (packed(item=tag(56500, row(text("lz4"), whole(0), whole(3)))), "is no lz4 data"),
        (packed(item=tag(56500, row(text("lz4")))), "has no bytes"),
        (packed(content=struct.pack(">Q", 2**50) + WELL[8:]), f"unpacks to {2**50} bytes"),
        (packed(content=struct.pack(">Q", 22) + WELL[8:]), "unpacks to 22 bytes instead of 24"),
        (packed(content=WELL[:-3]), "cannot be unpacked as bslz4"),
        (packed(content=WELL[:12] + b"\xff" * 20), "cannot be unpacked as bslz4"),
        (packed(size=text("two")), "cannot be unpacked as bslz4"),
        (packed(size=whole(0)), "cannot be unpacked as bslz4"),
        (packed(algorithm=text("lz4"), content=WELL[:12] + b"\xff" * 20), "unpacked as lz4"),
    ],
)
def test_pixels_that_cannot_be_are_never_guessed_at(item, why):
    with pytest.raises(BadMessage, match=why):
        pixels_of(image(data=mapping(threshold_1=item)))


@given(st.data())
def test_damaged_messages_are_told_or_read_and_never_crash(data):
    raw = bytearray(image(data=mapping(threshold_1=packed())))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode(bytes(raw))
        if isinstance(found, ImageMessage):
            for item in found.data.values():
                assert unpack(item, 3, 4, U16).shape == (3, 4)
    except BadMessage:
        pass


@pytest.mark.parametrize("date", [tag(0, text("2023-02-10T14:23:29.123")), text("today"), whole(5)])
def test_a_date_that_cannot_be_compared_is_none(date):
    try:
        assert decode(image(series_date=date)).series_date is None
    except BadMessage as error:
        assert "datetime" in str(error)


def test_the_hook_takes_the_tag_from_both_kinds_of_cbor2():
    """Up to 5.x it is called with (decoder, tag), from 6.0 on with (tag, immutable)."""
    tagged = cbor2.CBORTag(56500, ["lz4", 0, b""])
    for arguments in ((object(), tagged), (tagged, False)):
        assert dectris_messages._tag(*arguments) == Compressed("lz4", 0, b"")
    other = cbor2.CBORTag(4711, 1)
    assert dectris_messages._tag(other, True) is other


def test_a_time_that_is_no_whole_nanosecond_is_rounded_half_up():
    assert [Ticks(n, 2 * 10**9).ns for n in (0, 1, 2, 3)] == [0, 1, 1, 2]
    assert Ticks(1, 3).ns == math.floor(10**9 / 3)
