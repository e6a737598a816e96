"""Frames are no longer shown once the ring fills, and shown again once it has emptied."""

from runner.previews import Previews


def test_showing_stops_and_goes_on_with_room_between_and_each_is_told_once():
    previews = Previews()
    found = [previews.admit(fill) for fill in (0.0, 0.5, 0.6, 0.9, 0.3, 0.2, 0.4, 0.51, 0.1)]
    assert [shown for shown, _ in found] == [1, 1, 0, 0, 0, 1, 1, 0, 1]
    news = [text for _, text in found if text]
    assert news[0].startswith("the disk is slow: 60 % of the ring wait")
    assert news[1] == "the disk keeps up again; 3 frames were not shown"
    assert news[3] == "the disk keeps up again; 1 frames were not shown"
    assert previews.counters == {"written": 5, "dropped": 4}
