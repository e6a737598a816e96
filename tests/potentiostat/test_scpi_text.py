"""SCPI as text: what is never sent, and how numbers and errors are read."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potentiostat.errors import InstrumentRefused, ReplyError, UnsafeRequest
from potentiostat.scpi import (
    MAX_QUEUED_ERRORS,
    raise_queued_errors,
    read_number,
    read_numbers,
    refuse_unsafe,
    write_number,
)
from potentiostat.visa import Reply

NEVER = [
    "*RST",
    "*rst",
    " *RST ",
    "*RCL 0",
    "*rcl 3",
    ":SYST:PRES",
    "SYST:PRES",
    ":SYSTem:PRESet",
    "system:preset",
    ":MEAS?",
    ":MEASure:CURRent?",
    "meas:volt:dc?",
    ":CONF:CURR",
    ":CONFigure:VOLTage:DC",
    ":SOUR:CLE:AUTO ON",
    ":SOUR:CLE:AUTO 1",
    ":SOURCE1:CLEAR:AUTO\tON",
    "sour:cle:auto   on",
    ":SOUR:CLE",
    ":SOUR:CLE:IMM",
    ":SOURce1:CLEar:IMMediate",
    ":SOUR:CURR 0;:SYST:PRES",
    "*CLS; *RST",
    "*CLS\n*RST",
    "*CLS\r\n:MEAS?",
]
OFF = [
    ":OUTP OFF",
    ":OUTP 0",
    "OUTP OFF",
    "outp off",
    ":OUTPUT OFF",
    ":OUTP1 OFF",
    ":OUTP:STAT OFF",
    ":OUTPut1:STATe 0",
    ":OUTP\tOFF",
    ":OUTP   OFF",
    ":SOUR:CURR 0; :OUTP OFF",
    ":SOUR:CURR 0\n:OUTP OFF",
]
FINE = [
    ":OUTP ON",
    ":OUTP 1",
    ":OUTP?",
    ":SOUR:CLE:AUTO OFF",
    ":SOUR:CLE:AUTO 0",
    ":SOUR:CLE:AUTO?",
    ":SOUR:CURR 1E-11",
    ":SENS:VOLT:PROT 4.2",
    ":SYST:ERR?",
    "*CLS",
    "*IDN?",
    ":READ?",
]


@pytest.mark.parametrize("off_is_short", [True, False])
@pytest.mark.parametrize("command", NEVER)
def test_some_commands_are_never_sent(command, off_is_short):
    with pytest.raises(UnsafeRequest, match="never sent"):
        refuse_unsafe(command, off_is_short=off_is_short)


@pytest.mark.parametrize("command", OFF)
def test_the_output_is_not_switched_off_onto_a_cell(command):
    with pytest.raises(UnsafeRequest, match="rests at 0 A"):
        refuse_unsafe(command, off_is_short=True)
    refuse_unsafe(command, off_is_short=False)


@pytest.mark.parametrize("command", FINE)
def test_all_else_may_be_sent(command):
    refuse_unsafe(command, off_is_short=True)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e30, max_value=1e30))
def test_a_number_comes_back_as_it_was_written(value):
    assert read_number(write_number(value)) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_set_point_that_is_not_finite_is_not_written(value):
    with pytest.raises(UnsafeRequest, match="no set-point"):
        write_number(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("+1.000000E-12", 1e-12),
        (" 3 ", 3.0),
        ("9.9E37", math.inf),
        ("+9.900000E+37", math.inf),
        ("-9.900000E+37", -math.inf),
        ("1E300", math.inf),
        ("9.8E37", 9.8e37),
    ],
)
def test_numbers_are_read_and_overflow_is_infinite(text, value):
    assert read_number(text) == value


@pytest.mark.parametrize("text", ["9.91E37", "+9.910000E+37", "nan", "NAN"])
def test_what_is_not_a_number_reads_as_nan(text):
    assert math.isnan(read_number(text))


@pytest.mark.parametrize("text", ["", "ON", "1,2", "1.0.0", "0x10"])
def test_a_reply_that_is_no_number_is_an_error(text):
    with pytest.raises(ReplyError, match="is no number"):
        read_number(text)


def test_a_list_of_numbers_must_have_the_right_length():
    assert read_numbers("1, 2,3", 3) == (1.0, 2.0, 3.0)
    for wrong in ("1,2", "1,2,3,4", ""):
        with pytest.raises(ReplyError):
            read_numbers(wrong, 3)


@pytest.mark.parametrize("special", ["9.91E37", "+9.9E37", "-9.9E37", "NAN", "ON"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_list_of_numbers_reads_each_as_one_number_is_read(special, place):
    parts = ["+3.9E+00", "-1.0E-11", "+4.567"]
    parts[place] = special
    if special == "ON":
        with pytest.raises(ReplyError, match="'ON' is no number"):
            read_numbers(",".join(parts), 3)
        return
    found, expected = read_numbers(",".join(parts), 3), tuple(map(read_number, parts))
    assert repr(found) == repr(expected)


class Queue:
    resource = "somewhere"

    def __init__(self, *errors):
        self.errors = list(errors)
        self.asked = 0

    def query(self, command):
        assert command == ":SYST:ERR?"
        self.asked += 1
        return Reply(self.errors.pop(0) if self.errors else '0,"No error"', 0, 1)


def test_an_empty_error_queue_is_no_error():
    queue = Queue()
    raise_queued_errors(queue, "nothing")
    assert queue.asked == 1


def test_all_queued_errors_are_told_and_the_queue_is_left_empty():
    queue = Queue('-113,"Undefined header"', '+803,"Not permitted with OUTPUT off"')
    with pytest.raises(InstrumentRefused, match="after a test: -113.*803") as caught:
        raise_queued_errors(queue, "a test")
    assert "somewhere" in str(caught.value)
    assert not queue.errors
    raise_queued_errors(queue, "again")


def test_a_queue_that_never_ends_is_left():
    queue = Queue(*['-350,"Queue overflow"'] * 100)
    with pytest.raises(InstrumentRefused):
        raise_queued_errors(queue, "a flood")
    assert queue.asked == MAX_QUEUED_ERRORS


def test_an_error_queue_that_says_nonsense_is_an_error():
    with pytest.raises(ReplyError):
        raise_queued_errors(Queue("what?"), "a test")
