"""The link over real sockets: one owner, and never the reply to another question."""

import itertools
import socket
import struct
import threading

import pytest

from potentiostat import socket_lines
from potentiostat.errors import LinkError, NoReply, ReplyError, UnknownInstrument
from potentiostat.visa import VisaLink

IDENTITY = "MAKER,MODEL 6430,1,A"


@pytest.fixture
def connect(serve):
    links = []

    def start(answer):
        instrument = serve(answer)
        ticks = itertools.count(1000)
        link = VisaLink(instrument.resource, now_ns=lambda: next(ticks), timeout_s=0.2)
        link.open()
        links.append(link)
        return link, instrument

    yield start
    for link in links:
        link.close()


def plain(line):
    if line == "*IDN?":
        return f"{IDENTITY}\n"
    return f"answer to {line}\n" if line.endswith("?") else None


def test_a_question_gets_its_reply_between_two_stamps(connect):
    link, _ = connect(plain)
    reply = link.query("A?")
    assert reply.text == "answer to A?"
    assert reply.sent_ns < reply.received_ns


def test_a_command_is_sent_as_one_line(connect):
    link, instrument = connect(plain)
    link.write(":SOUR:CURR 0")
    link.query("A?")
    assert instrument.lines == [":SOUR:CURR 0", "A?"]


def test_small_commands_leave_at_once(connect):
    link, _ = connect(plain)
    raw = link._visa.visalib.sessions[link._visa.session].interface
    assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


class Late:
    """Keeps the reply to ``SLOW?`` until the next question has been asked."""

    def __init__(self, first=b"", rest=b"late\n"):
        self.first, self.rest, self.waiting = first, rest, b""

    def __call__(self, line):
        if line == "SLOW?":
            self.waiting = self.rest
            return self.first
        late, self.waiting = self.waiting, b""
        return late + (plain(line) or "").encode()


@pytest.mark.parametrize(
    "late",
    [
        Late(),
        Late(rest=b"late\nlater\n"),
        Late(first=b"1.5", rest=b"E-9\n"),
        Late(rest=b"\xff\xfe\n"),
        Late(first=b"\xff", rest=b"\xfe\nlate\n"),
    ],
    ids=["whole", "two", "cut in half", "not text", "not text in part"],
)
def test_a_late_reply_is_never_taken_for_the_next_answer(connect, late):
    link, _ = connect(late)
    link.query("*IDN?")
    with pytest.raises(NoReply, match=r"no reply to SLOW\? within 0.2 s"):
        link.query("SLOW?")
    assert link.query("A?").text == "answer to A?"
    assert link.query("B?").text == "answer to B?"


def test_a_reply_that_was_already_on_the_way_is_read_away(connect):
    # The instrument says more than was asked, so a stale line waits in the buffer.
    link, _ = connect(lambda line: "one\ntwo\n" if line == "A?" else plain(line))
    link.query("*IDN?")
    assert link.query("A?").text == "one"
    link.resync()
    assert link.query("B?").text == "answer to B?"


def test_the_first_answer_to_the_fence_is_remembered_as_the_identity(connect):
    silent = iter([True])
    link, _ = connect(lambda line: None if line == "A?" and next(silent, False) else plain(line))
    with pytest.raises(NoReply):
        link.query("A?")
    assert link.query("A?").text == "answer to A?"


def test_an_identity_that_comes_at_the_second_fence_is_enough(connect):
    fences = itertools.count()

    def answer(line):
        if line == "SLOW?":
            return None
        if line == "*IDN?" and next(fences) == 1:
            return None
        return plain(line)

    link, instrument = connect(answer)
    link.query("*IDN?")
    with pytest.raises(NoReply):
        link.query("SLOW?")
    assert instrument.lines.count("*IDN?") == 3
    assert link.query("A?").text == "answer to A?"


def test_an_instrument_that_never_answers_is_given_up(connect):
    link, instrument = connect(lambda line: None)
    with pytest.raises(LinkError, match="out of step") as caught:
        link.query("A?")
    assert not isinstance(caught.value, NoReply)
    asked = len(instrument.lines)
    with pytest.raises(LinkError, match="not used again"):
        link.query("A?")
    with pytest.raises(LinkError, match="not used again"):
        link.write("B")
    assert len(instrument.lines) == asked


def test_another_identity_after_a_timeout_is_not_trusted(connect):
    names = iter([IDENTITY])
    link, _ = connect(lambda line: f"{next(names, 'SOMEBODY ELSE')}\n" if line == "*IDN?" else None)
    link.query("*IDN?")
    with pytest.raises(LinkError, match="out of step"):
        link.query("A?")


def test_an_endless_stream_of_stale_replies_is_given_up(connect, monkeypatch):
    monkeypatch.setattr("potentiostat.visa.MAX_STALE_REPLIES", 3)
    link, _ = connect(lambda line: None if line == "A?" else "noise\n" * 20)
    link._identity = IDENTITY
    with pytest.raises(LinkError, match="out of step"):
        link.query("A?")


def test_a_reply_that_is_no_text_fails_the_link(connect):
    link, _ = connect(lambda line: b"\xff\xfe\n")
    with pytest.raises(LinkError, match=r"A\?"):
        link.query("A?")
    with pytest.raises(LinkError, match="not used again"):
        link.query("A?")


def test_a_closed_socket_fails_the_link(connect, hang_up):
    link, _ = connect(lambda line: hang_up)
    with pytest.raises(LinkError) as caught:
        link.query("A?")
    assert not isinstance(caught.value, NoReply)
    with pytest.raises(LinkError, match="not used again"):
        link.query("A?")


def test_a_reset_connection_fails_a_write(connect, monkeypatch):
    link, _ = connect(plain)

    def broken(command):
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(link._visa, "write", broken)
    with pytest.raises(LinkError, match="reset by peer"):
        link.write("A")
    with pytest.raises(LinkError, match="not used again"):
        link.write("A")


@pytest.mark.parametrize("where", ["_ask", "read", "read_raw"])
def test_a_link_that_breaks_is_not_used_again(connect, monkeypatch, where):
    from pyvisa import constants
    from pyvisa.errors import VisaIOError

    link, _ = connect(lambda line: None)

    def broken(*_):
        raise VisaIOError(constants.StatusCode.error_connection_lost)

    def late(*_):
        raise VisaIOError(constants.StatusCode.error_timeout)

    monkeypatch.setattr(link, "_ask", late)
    monkeypatch.setattr(link if where == "_ask" else link._visa, where, broken)
    with pytest.raises(LinkError, match="(?i)connection"):
        link.query("A?")
    with pytest.raises(LinkError, match="not used again"):
        link.query("A?")


@pytest.mark.parametrize("length", [7, 8, 9, 4095, 20_000])
@pytest.mark.parametrize("own_socket", [True, False])
def test_a_line_may_be_longer_than_one_read(connect, monkeypatch, length, own_socket):
    monkeypatch.setattr("potentiostat.visa.LINE_BYTES", 8)
    monkeypatch.setattr("potentiostat.socket_lines.READ_BYTES", 8)
    link, _ = connect(lambda line: ("x" * length if line == "A?" else line) + "\n")
    assert link._lines is not None
    if not own_socket:
        link._lines = None
    assert link.query("A?").text == "x" * length
    assert link.query("B?").text == "B?"


def test_two_lines_at_once_are_two_replies_wherever_they_are_read(connect):
    link, instrument = connect(lambda line: "one\ntwo\nthree\n" if line == "A?" else f"{line}\n")
    assert link.query("A?").text == "one"
    assert not link._lines.is_clear
    assert link.query("B?").text == "two"
    assert link.listen().text == "three"
    assert link.query("C?").text == "B?"
    assert link.listen().text == "C?"  # by when the instrument has heard it
    assert instrument.lines == ["A?", "B?", "C?"]


def test_a_part_of_a_line_that_came_too_late_belongs_to_no_other(connect):
    replies = {"A?": "half", "B?": "whole\n", "*IDN?": f"{IDENTITY}\n"}
    link, _ = connect(lambda line: replies[line])
    link.query("*IDN?")
    with pytest.raises(NoReply, match=r"no reply to A\? within"):
        link.query("A?", within_s=0.05)
    assert link.query("B?").text == "whole"


def test_who_hangs_up_is_noticed_at_once(connect, hang_up):
    link, _ = connect(lambda line: hang_up)
    with pytest.raises(LinkError, match="hung up") as caught:
        link.query("A?", within_s=3600.0)
    assert not isinstance(caught.value, NoReply)


def test_a_second_thread_is_turned_away(connect):
    link, instrument = connect(plain)
    link.query("A?")
    found = []

    def elsewhere():
        for use in (lambda: link.query("B?"), lambda: link.write("C"), link.resync):
            try:
                use()
            except LinkError as error:
                found.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(5)
    assert len(found) == 3
    assert all("second thread" in text for text in found)
    assert link.query("D?").text == "answer to D?"
    assert instrument.lines == ["A?", "D?"]


@pytest.mark.parametrize("resource", ["NOSUCH::1::INSTR", "TCPIP::", ""])
def test_a_name_that_is_no_resource_is_unknown(resource):
    with pytest.raises(UnknownInstrument, match="cannot be opened"):
        VisaLink(resource, now_ns=lambda: 0, timeout_s=0.2).open()


def test_a_port_where_nobody_listens_is_unknown():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UnknownInstrument, match="cannot be opened"):
        VisaLink(f"TCPIP::127.0.0.1::{port}::SOCKET", now_ns=lambda: 0, timeout_s=0.2).open()


def test_a_host_that_does_not_answer_is_unknown(monkeypatch):
    def silent(*_):
        raise Exception("could not connect: timeout")  # noqa: TRY002 - as pyvisa-py does

    monkeypatch.setattr("pyvisa_py.tcpip.TCPIPSocketSession._connect", silent)
    with pytest.raises(UnknownInstrument, match="could not connect"):
        VisaLink("TCPIP::127.0.0.1::1::SOCKET", now_ns=lambda: 0, timeout_s=0.2).open()


def test_a_link_that_is_not_open_says_so():
    link = VisaLink("TCPIP::127.0.0.1::1::SOCKET", now_ns=lambda: 0)
    with pytest.raises(LinkError, match="is not open"):
        link.query("A?")
    link.close()


def test_the_context_opens_and_closes(serve):
    instrument = serve(plain)
    with VisaLink(instrument.resource, now_ns=lambda: 0, timeout_s=0.2) as link:
        assert link.query("A?").text == "answer to A?"
    with pytest.raises(LinkError, match="is not open"):
        link.query("A?")


def test_a_backend_without_sockets_of_ours_is_left_alone():
    link = VisaLink("X", now_ns=lambda: 0)

    class Visa:
        visalib = object()
        session = 1

    link._visa = Visa()
    link._prepare_socket()


def test_an_error_without_words_is_named_by_its_kind(connect, monkeypatch):
    link, _ = connect(plain)

    def broken(command):
        raise BrokenPipeError

    monkeypatch.setattr(link, "_ask", broken)
    with pytest.raises(LinkError, match="BrokenPipeError"):
        link.query("A?")


# --- blocks and streams -------------------------------------------------------------------

# Bytes that look like a line end, a header and no text at all.
PAYLOAD = struct.pack("<4d", 1.5, -3e-12, 2.0, 1e300) + b"\n#0\xff"


@pytest.mark.parametrize("head", [b"#0", f"#2{len(PAYLOAD)}".encode()])
def test_a_block_is_read_by_its_size(connect, head):
    link, _ = connect(lambda line: head + PAYLOAD + b"\n" if line == "DATA?" else plain(line))
    block = link.query_block("DATA?", len(PAYLOAD))
    assert block.data == PAYLOAD
    assert block.sent_ns < block.received_ns
    assert link.query("A?").text == "answer to A?"


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (b"#0" + PAYLOAD + b"more\n", "goes on with"),
        (b"#3999" + PAYLOAD + b"\n", "instead of"),
        (b"#2x9" + PAYLOAD + b"\n", "instead of"),
        (b"1.5,2.5\n", "is no block"),
        (b"#A" + PAYLOAD + b"\n", "is no block"),
    ],
)
def test_what_is_no_such_block_is_refused_and_read_away(connect, reply, why):
    link, _ = connect(lambda line: reply if line == "DATA?" else plain(line))
    link.query("*IDN?")
    with pytest.raises(ReplyError, match=why):
        link.query_block("DATA?", len(PAYLOAD))
    assert link.query("A?").text == "answer to A?"


@pytest.mark.parametrize("cut", [0, 1, 2, 10, len(PAYLOAD) + 2])
def test_a_block_that_is_cut_short_is_never_a_whole_one(connect, cut):
    link, _ = connect(lambda line: (b"#0" + PAYLOAD)[:cut] if line == "DATA?" else plain(line))
    link.query("*IDN?")
    with pytest.raises(NoReply):
        link.query_block("DATA?", len(PAYLOAD))
    assert link.query("A?").text == "answer to A?"


def test_a_link_that_breaks_in_a_block_is_not_used_again(connect, hang_up):
    link, _ = connect(lambda line: hang_up if line == "DATA?" else plain(line))
    with pytest.raises(LinkError) as caught:
        link.query_block("DATA?", 8)
    assert not isinstance(caught.value, NoReply)
    with pytest.raises(LinkError, match="not used again"):
        link.query_block("DATA?", 8)


def test_lines_that_come_unasked_are_listened_to(connect):
    link, _ = connect(lambda line: "one\ntwo\n" if line == "GO" else plain(line))
    link.write("GO")
    assert [link.listen().text for _ in range(2)] == ["one", "two"]
    with pytest.raises(NoReply, match="silent"):
        link.listen()
    assert link.query("A?").text == "answer to A?"


def test_a_stream_that_breaks_is_found_out_by_the_next_question(connect, hang_up):
    link, _ = connect(lambda line: hang_up)
    link.write("GO")
    with pytest.raises(NoReply, match="silent"):
        link.listen()
    with pytest.raises(LinkError) as caught:
        link.query("A?")
    assert not isinstance(caught.value, NoReply)


def test_a_stream_that_is_no_text_fails_the_link(connect):
    link, _ = connect(lambda line: b"\xff\xfe\n")
    link.write("GO")
    with pytest.raises(LinkError, match="listening") as caught:
        link.listen()
    assert not isinstance(caught.value, NoReply)


def test_a_stream_whose_link_breaks_is_not_listened_to_again(connect, monkeypatch):
    from pyvisa import constants
    from pyvisa.errors import VisaIOError

    link, _ = connect(plain)

    def broken():
        raise VisaIOError(constants.StatusCode.error_connection_lost)

    monkeypatch.setattr(link._visa, "read", broken)
    with pytest.raises(LinkError, match="(?i)connection"):
        link.listen()
    with pytest.raises(LinkError, match="not used again"):
        link.listen()


def test_another_word_for_the_identity(serve):
    instrument = serve(lambda line: "me\n" if line == "t" else None)
    with VisaLink(instrument.resource, now_ns=lambda: 0, timeout_s=0.2, identity_query="t") as link:
        with pytest.raises(NoReply):
            link.query("A")
        assert link.query("t").text == "me"
    assert "*IDN?" not in instrument.lines


def test_a_resource_that_another_program_has_locked_is_not_opened(serve, monkeypatch):
    from pyvisa import constants
    from pyvisa.errors import VisaIOError
    from pyvisa.resources import Resource

    def locked(*_, **__):
        raise VisaIOError(constants.StatusCode.error_resource_locked)

    monkeypatch.setattr(Resource, "lock_excl", locked)
    instrument = serve(plain)
    link = VisaLink(instrument.resource, now_ns=lambda: 0)
    with pytest.raises(UnknownInstrument, match=r"RSRC_LOCKED.*no other program"):
        link.open()
    assert instrument.lines == []


def test_a_link_that_knows_no_locks_is_opened(serve, monkeypatch):
    from pyvisa.resources import Resource

    def unknown(*_, **__):
        raise NotImplementedError

    monkeypatch.setattr(Resource, "lock_excl", unknown)
    with VisaLink(serve(plain).resource, now_ns=lambda: 0) as link:
        assert link.query("A?").text == "answer to A?"


# --- replies that take their time, and instruments that wait for something else ---------------


class Working:
    """Answers ``LONG?`` after a while, and is deaf meanwhile."""

    def __init__(self, reply, seconds):
        self.reply, self.seconds = reply, seconds

    def __call__(self, line):
        if line == "LONG?":
            threading.Event().wait(self.seconds)
            return self.reply
        return plain(line)


def test_a_reply_may_have_a_time_of_its_own(connect):
    link, _ = connect(Working("done\n", 0.35))
    assert link.query("LONG?", within_s=5.0).text == "done"
    assert link.query("A?").text == "answer to A?"


def test_a_block_may_have_a_time_of_its_own(connect):
    link, _ = connect(Working(b"#0\n\n\n\n\n", 0.35))
    assert link.query_block("LONG?", 4, within_s=5.0).data == b"\n\n\n\n"
    # The time is for that reply alone.
    with pytest.raises(NoReply, match=r"within 0.2 s"):
        link.query("LONG?")
    assert link.query("A?").text == "answer to A?"


class Deaf:
    """Once asked for ``EDGE?`` it obeys an abort alone, and keeps all else for later."""

    def __init__(self, late):
        self.late, self.waits, self.kept = late, False, []

    def __call__(self, line):
        if line == "EDGE?":
            self.waits = True
            return None
        if not self.waits:
            return plain(line)
        if line != ":ABOR":
            self.kept.append(line)
            return None
        self.waits = False
        return self.late + "".join(plain(kept) or "" for kept in self.kept).encode()


@pytest.mark.parametrize("late", [b"", b"late\n", b"#0\n\xff"], ids=["silent", "text", "binary"])
@pytest.mark.parametrize("ask", ["query", "query_block"])
def test_an_abort_makes_it_listen_before_the_link_is_brought_in_order(connect, late, ask):
    link, instrument = connect(Deaf(late))
    link.query("*IDN?")
    arguments = ("EDGE?",) if ask == "query" else ("EDGE?", 4)
    with pytest.raises(NoReply, match=r"no reply to EDGE\? within 0.1 s"):
        getattr(link, ask)(*arguments, within_s=0.1, abort=":ABOR")
    assert instrument.lines[1:4] == ["EDGE?", ":ABOR", "*IDN?"]
    assert link.query("A?").text == "answer to A?"


def test_without_an_abort_it_stays_deaf_and_the_link_is_given_up(connect):
    link, _ = connect(Deaf(b""))
    link.query("*IDN?")
    with pytest.raises(LinkError, match="out of step"):
        link.query("EDGE?", within_s=0.1)


@pytest.mark.parametrize(("quick_ns", "looks"), [(10**10, 5), (-1, 1)])
def test_replies_are_looked_out_for_while_they_come_quickly(connect, monkeypatch, quick_ns, looks):
    monkeypatch.setattr("potentiostat.socket_lines.LOOK_OUT_NS", quick_ns)
    looked = []
    look_out = socket_lines._look_out
    monkeypatch.setattr(socket_lines, "_look_out", lambda *a: (looked.append(a), look_out(*a)))
    link, _ = connect(plain)
    for i in range(5):
        assert link.query(f"A{i}?").text == f"answer to A{i}?"
    assert len(looked) == looks
