"""Movies of a session: every frame once, with marks, scale bar, time and traces."""

import math

import numpy as np
import pytest
from PIL import Image

from runner.movie import write_movie
from runner.movie_page import HEIGHT, PANE, PLOTS, WIDTH, MoviePage, Plot, bar_length
from runner.outputs import OutputRefused
from tests.runner.test_report import bare_session, foreign_track

TIMES = np.arange(10.0)


def page(*, pixel_m=1e-9, plots=True, shape=(50, 100)):
    plot = Plot(
        name="length",
        unit="nm",
        colour="#40e0aa",
        t_s=TIMES,
        value=np.where(TIMES == 4, math.nan, TIMES),
        low=TIMES - 0.5,
        high=TIMES + 0.5,
    )
    made = [plot] if plots else []
    return MoviePage("a title", made, span_s=(0.0, 9.0), shape=shape, pixel_m=pixel_m)


def drawn(picture, box):
    return np.asarray(picture.crop(box)).astype(int)


def mark(**changes):
    known = {"track": "arm", "thing": "tip", "moves": True, "x": None, "y": None}
    return {**known, "sigma": None, "radius": None, "state": None, **changes}


def test_a_line_stands_at_its_column_of_the_frame():
    made = page(pixel_m=math.nan)
    grey = np.zeros((50, 100), np.uint8)
    found = drawn(made.picture(grey, 1.0, marks=[mark(x=[20.0, 70.0])], row=1), PANE)
    columns = np.flatnonzero(found[: 50 * round(made.scale), :, 1].mean(axis=0) > 100)
    assert columns == pytest.approx(70.5 * made.scale, abs=1.5)
    nothing = drawn(made.picture(grey, 1.0, marks=[mark(x=[None])]), PANE)
    assert nothing[: round(50 * made.scale), : round(100 * made.scale)].max() == 0


def test_a_place_is_a_ring_and_its_state_tints_it():
    made = page(pixel_m=math.nan)
    grey = np.zeros((50, 100), np.uint8)
    rings = []
    for state in (0.0, 1.0):
        place = mark(x=[50.0], y=[25.0], radius=10.0, state=[state])
        found = drawn(made.picture(grey, 0.0, marks=[place]), PANE)
        centre = found[round(25.5 * made.scale), round(50.5 * made.scale)]
        edge = found[round(25.5 * made.scale), round((50.5 + 10) * made.scale) - 1]
        assert centre.max() == 0
        rings.append(edge)
    (red_0, _, blue_0), (red_1, _, blue_1) = rings
    assert blue_0 > red_0
    assert red_1 > blue_1


@pytest.mark.parametrize(
    ("field_m", "length_nm", "text"),
    [
        (800e-9, 100.0, "100 nm"),
        (12e-9, 2.0, "2 nm"),
        (26e-6, 5000.0, "5 µm"),
        (4e-9, 0.5, "0.5 nm"),
    ],
)
def test_the_scale_bar_is_round_and_a_fifth_at_most(field_m, length_nm, text):
    found = bar_length(field_m)
    assert found == (pytest.approx(length_nm), text)


def test_the_scale_bar_is_as_long_as_it_says():
    made = page(pixel_m=1e-9)  # 100 nm across: a bar of 20 nm
    found = drawn(made.picture(np.full((50, 100), 90, np.uint8), 0.0), PANE)
    bar = found[round(50 * made.scale) - 14]
    assert np.sum(np.all(bar == 255, axis=1)) == pytest.approx(20 * made.scale, abs=2)


def test_the_cursor_moves_with_the_time_and_unknown_values_have_no_dot():
    made, grey = page(), np.zeros((50, 100), np.uint8)
    left, top, right, bottom = PLOTS
    still = drawn(page().picture(grey, 0.0), PLOTS)
    for t_s in (3.0, 4.0, 8.0):
        moved = drawn(made.picture(grey, t_s), PLOTS)
        changed = np.flatnonzero(np.any(moved != still, axis=(0, 2)))
        at = t_s / 9.0 * (right - left)
        assert np.min(np.abs(changed - at)) <= 1
        dot = np.sum(np.abs(changed - at) < 6) > 4
        assert dot == (t_s != 4.0)
    assert bottom - top > 0


def frames_of(path):
    with Image.open(path) as film:
        for number in range(film.n_frames):
            film.seek(number)
            yield film.convert("RGB").copy()


def test_every_frame_is_shown_once_with_the_track_of_a_tracker_that_nobody_knows(tmp_path):
    session = foreign_track(tmp_path / "s.h5")
    told = []
    summary = write_movie(
        session, tmp_path / "s.gif", progress=lambda done, count: told.append((done, count))
    )
    assert (summary.frames, told[-1]) == (6, (6, 6))
    assert summary.times_real == pytest.approx(25.0)
    pictures = list(frames_of(tmp_path / "s.gif"))
    assert len(pictures) == 6
    assert {picture.size for picture in pictures} == {(WIDTH, HEIGHT)}
    assert not (tmp_path / "s.part.gif").exists()
    thinned = write_movie(session, tmp_path / "s.gif", every=3, overwrite=True)
    assert thinned.frames == len(list(frames_of(tmp_path / "s.gif"))) == 2


def test_an_mp4_has_every_frame(tmp_path):
    av = pytest.importorskip("av")
    session = bare_session(tmp_path / "s.h5", frames=5)  # without readings, tracks, pixel size
    write_movie(session, tmp_path / "s.mp4", frame_rate_Hz=10.0)
    with av.open(str(tmp_path / "s.mp4")) as film:
        stream = film.streams.video[0]
        assert (stream.width, stream.height, float(stream.average_rate)) == (WIDTH, HEIGHT, 10.0)
        assert sum(1 for _ in film.decode(video=0)) == 5


def test_what_cannot_be_a_movie_is_refused(tmp_path):
    session = bare_session(tmp_path / "s.h5", samples=5)
    with pytest.raises(OutputRefused, match="no frames"):
        write_movie(session, tmp_path / "s.gif")
    with pytest.raises(OutputRefused, match=r"ends in \.mp4 or \.gif"):
        write_movie(session, tmp_path / "s.avi")
    (tmp_path / "there.gif").touch()
    with pytest.raises(OutputRefused, match="--overwrite"):
        write_movie(session, tmp_path / "there.gif")
