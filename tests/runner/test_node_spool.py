"""The spool of a node: numbered, bounded, whole after a crash; and the outlet before it."""

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.bus_address import BusError, PublishRefused
from runner.node_outlet import PENDING, Outlet
from runner.node_resend import read_resend, write_resend
from runner.node_spool import FILES, NAME, Spool, SpoolError


def filled(folder, count, **options):
    spool = Spool.open(folder, **options)
    for n in range(count):
        spool.append([("frames", {"n": n})])
    return spool


def numbers(spooled):
    return [s.number for s in spooled]


def test_messages_come_back_by_number(tmp_path):
    spool = filled(tmp_path / "new" / "spool", 10)
    assert numbers(spool.read(4, 3)) == [4, 5, 6]
    assert spool.read(4, 1)[0].message == {"n": 4}
    assert spool.read(4, 1)[0].topic == "frames"
    assert spool.read(10, 5) == []
    assert (spool.oldest, spool.next) == (0, 10)
    spool.close()


def test_an_empty_spool_begins_at_nothing(tmp_path):
    spool = Spool.open(tmp_path)
    spool.append([])
    assert (spool.oldest, spool.next, spool.read(0, 9)) == (0, 0, [])
    spool.close()


def test_it_stays_within_its_bytes_and_says_what_it_forgot(tmp_path):
    spool = filled(tmp_path, 2000, max_bytes=8192)
    spool.close()
    on_disk = sum(f.stat().st_size for f in tmp_path.glob("*.jsonl"))
    assert on_disk <= 8192 + 100
    assert on_disk > 8192 * (1 - 2 / FILES)
    assert spool.counters.forgotten == spool.oldest > 0
    assert numbers(spool.read(0, 10_000)) == list(range(spool.oldest, 2000))


def test_it_goes_on_after_a_restart_under_the_same_epoch(tmp_path):
    first = filled(tmp_path, 5)
    first.close()
    again = filled(tmp_path, 2)
    assert (again.epoch, again.next) == (first.epoch, 7)
    assert numbers(again.read(3, 9)) == [3, 4, 5, 6]
    assert again.state()["next"] == 7
    again.close()


def test_numbers_that_begin_anew_have_a_new_epoch(tmp_path):
    first = filled(tmp_path, 5)
    first.close()
    for file in tmp_path.glob("*.jsonl"):
        file.unlink()
    again = Spool.open(tmp_path)
    assert again.next == 0
    assert again.epoch != first.epoch


@settings(max_examples=25)
@given(st.integers(1, 200))
def test_a_torn_end_is_cut_off_and_the_rest_stays(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("torn")
    spool = filled(folder, 6)
    spool.close()
    (file,) = folder.glob("*.jsonl")
    data = file.read_bytes()
    file.write_bytes(data[: max(len(data) - cut, 0)])
    left = file.read_bytes()
    whole = left.count(b"\n")
    again = Spool.open(folder)
    assert again.counters.torn == (not left.endswith(b"\n") and left != b"")
    assert all(f.read_bytes().endswith(b"\n") for f in folder.glob("*.jsonl"))
    assert numbers(again.read(0, 9)) == list(range(whole))
    again.append([("frames", {"n": "new"})])
    assert again.read(whole, 1)[0].message == {"n": "new"}
    again.close()


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SpoolError, match="file"):
        Spool.open(tmp_path / "file")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "name.jsonl").write_text("{}\n")
    with pytest.raises(SpoolError, match="bad"):
        Spool.open(tmp_path / "bad")
    spool = filled(tmp_path / "rotten", 3)
    spool.close()
    (file,) = (tmp_path / "rotten").glob("*.jsonl")
    file.write_text("no JSON\n" * 3)
    with pytest.raises(SpoolError, match="cannot be read"):
        spool.read(0, 3)
    assert (tmp_path / "rotten" / NAME).exists()


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    spool = filled(tmp_path, 1)

    class Full:
        def write(self, _):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    spool.close()
    spool._writing = Full()
    with pytest.raises(SpoolError, match="No space left"):
        spool.append([("frames", {})])


@pytest.mark.parametrize(
    "payload", [b"", b"{}", b"[]", b'{"epoch": "a"}', b'{"epoch": 1, "first": []}']
)
def test_what_asks_for_nothing_is_left(payload):
    assert read_resend(payload) is None


def test_a_question_for_more_comes_through():
    assert read_resend(json.dumps(write_resend("e", 7)).encode()) == ("e", 7)
    assert read_resend(b'{"epoch": "e", "first": -3}') == ("e", 0)


# --- the outlet --------------------------------------------------------------------------


class Link:
    """Stands for the broker: it is there or not, and refuses what a test says."""

    def __init__(self):
        self.up = asyncio.Event()
        self.up.set()
        self.taken = []
        self.fail_after = None
        self.refuse = set()

    async def connected(self):
        await self.up.wait()

    async def publish(self, topic, message):
        if self.fail_after is not None and len(self.taken) >= self.fail_after:
            self.up.clear()
            raise BusError("gone")
        if message["number"] in self.refuse:
            raise PublishRefused("not that")
        self.taken.append((topic, message))


@pytest.fixture
async def outlet(tmp_path):
    link, spool = Link(), await asyncio.to_thread(Spool.open, tmp_path)
    outlet = Outlet(link, spool)
    outlet.link, outlet.spool = link, spool
    task = asyncio.create_task(outlet.run())
    yield outlet
    task.cancel()
    await asyncio.wait([task])
    spool.close()


def seen(outlet):
    return [message["number"] for _, message in outlet.link.taken]


async def test_what_is_put_is_published_in_order(outlet):
    for n in range(200):
        outlet.put("frames", {"n": n})
    assert await outlet.settle(30)
    assert seen(outlet) == list(range(200))
    assert outlet.link.taken[7] == (
        "frames",
        {"epoch": outlet.spool.epoch, "number": 7, "oldest": 0, "n": 7},
    )


async def test_after_an_interruption_it_goes_on_where_it_was(outlet):
    outlet.link.fail_after = 50
    for n in range(120):
        outlet.put("frames", {"n": n})
    assert not await outlet.settle(0.2)
    await outlet.kept()
    assert outlet.spool.next == 120
    assert len(outlet.link.taken) == 50
    outlet.link.fail_after = None
    outlet.link.up.set()
    assert await outlet.settle(30)
    assert seen(outlet) == list(range(120))


async def test_what_someone_missed_is_sent_again(outlet):
    for n in range(20):
        outlet.put("frames", {"n": n})
    assert await outlet.settle(30)
    outlet.resend("another epoch", 0)
    outlet.resend(outlet.spool.epoch, 99)  # not there yet
    assert outlet.counters.resends == 0
    outlet.resend(outlet.spool.epoch, 17)
    assert await outlet.settle(30)
    assert seen(outlet) == [*range(20), 17, 18, 19]


async def test_a_refused_message_does_not_hold_up_the_others(outlet):
    outlet.link.refuse = {3}
    for n in range(6):
        outlet.put("frames", {"n": n})
    assert await outlet.settle(30)
    assert seen(outlet) == [0, 1, 2, 4, 5]
    assert "not that" in outlet.trouble


async def test_a_disk_that_fails_is_counted_and_told(outlet, monkeypatch):
    def broken(*_):
        raise SpoolError("the disk is full")

    monkeypatch.setattr(outlet.spool, "append", broken)
    outlet.put("frames", {})
    await outlet.kept()
    assert (outlet.counters.dropped, outlet.trouble) == (1, "the disk is full")
    monkeypatch.undo()
    monkeypatch.setattr(outlet.spool, "read", broken)
    outlet.put("frames", {})
    await outlet.kept()
    assert await outlet.settle(30)  # it gives up that turn, and is not held for ever
    monkeypatch.undo()
    outlet.put("frames", {})
    await outlet.kept()
    assert await outlet.settle(30)
    assert seen(outlet) == [0, 1]


async def test_a_slow_disk_bounds_the_memory(tmp_path):
    outlet = Outlet(Link(), await asyncio.to_thread(Spool.open, tmp_path))
    for n in range(PENDING + 5):
        outlet.put("frames", {"n": n})
    assert len(outlet._pending) == PENDING
    assert outlet.counters.dropped == 5
