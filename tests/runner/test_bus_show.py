"""What goes over the bus while a run is played: columns of a few together."""

import json

import numpy as np
import pytest

from runner.bus_show import SAMPLES_TOGETHER, BusShow
from runner.tracking import Found, Seen
from session.records import SESSION_SAMPLE_DTYPE


@pytest.fixture
def shown():
    return []


@pytest.fixture
def show(shown):
    return BusShow(lambda topic, message: shown.append((topic, json.loads(json.dumps(message)))))


def test_readings_go_together_without_those_that_are_no_numbers(show, shown):
    rows = np.zeros(SAMPLES_TOGETHER - 1, SESSION_SAMPLE_DTYPE)
    rows["t_ns"] = np.arange(len(rows))
    rows["voltage"][3] = np.nan
    show.samples(rows)
    assert shown == []
    show.samples(rows[:2])
    ((topic, message),) = shown
    assert topic == "samples"
    assert message["t_ns"] == [t for t in range(len(rows)) if t != 3] + [0, 1]
    assert {len(column) for column in message.values()} == {len(rows) + 1}


def test_tracks_go_together_with_their_times_and_sigmas(show, shown):
    for i in range(6):
        lost = Found(False, {"position": np.nan, "position_sigma": np.nan}, "not registered")
        front = Found(
            True, {"position": i * 1e-9, "position_sigma": 1e-9, "edge_px": 3.0}, "", ("edge_px",)
        )
        tracks = {"front": lost if i == 2 else front} | ({"wire": front} if i == 1 else {})
        show.seen(Seen(i, i * 50_000_000, tracks, 0))
    topics = dict(shown)
    assert list(topics) == ["tracks/front", "tracks/wire"]
    front = topics["tracks/front"]
    assert front["provisional"] is True
    assert front["index"] == [0, 1, 2, 3, 4, 5]
    assert front["t_ns"] == [i * 50_000_000 for i in range(6)]
    assert front["valid"] == [True, True, False, True, True, True]
    assert front["reason"][2] == "not registered"
    assert front["columns"]["position"] == [0.0, 1e-9, None, pytest.approx(3e-9), 4e-9, 5e-9]
    assert "edge_px" not in front["columns"]
    assert topics["tracks/wire"]["index"] == [1]
    assert topics["tracks/wire"]["columns"]["position_sigma"] == [1e-9]


def test_nothing_is_shown_of_no_frames(show, shown):
    show.flush()
    assert shown == []
