"""`lamella movie`: the frames of a session with what was seen in them, beside the traces."""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runner.movie_page import HEIGHT, WIDTH, MoviePage, Plot
from runner.outputs import OutputRefused, refuse_existing
from runner.report_frames import camera_of, grey_of
from runner.report_numbers import axis_unit, largest, reduce_trace, seconds, value_text
from runner.report_tracks import marks_content, quantities_of, valid_column
from session.reader import Session

PYAV = "av"  # an extra: imported only when asked for
FRAME_RATE_HZ = 25.0
PLOT_POINTS = 3000
MOST_TRACKS = 2  # of which a trace is shown
QUALITY = "20"  # constant rate factor of x264: 18 is nearly lossless to the eye, 28 is coarse
VOLTAGE, CURRENT, TRACK = "#6cb2ff", "#ffae57", "#40e0aa"
Pictures = Iterator[Image.Image]


@dataclass(frozen=True, slots=True, kw_only=True)
class MovieSummary:
    """What was written.

    Parameters
    ----------
    frames
        Of the camera, each of which is one picture.
    times_real
        How much faster than the experiment it runs, by the median time between frames.
    """

    path: str
    frames: int
    seconds: float
    times_real: float
    size_bytes: int


def write_movie(
    session: Path,
    output: Path,
    *,
    frame_rate_Hz: float = FRAME_RATE_HZ,
    every: int = 1,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> MovieSummary:
    """Write the movie of a session.

    Parameters
    ----------
    output
        ``.mp4`` (needs the extra ``movie``) or ``.gif``.
    frame_rate_Hz
        Pictures in a second of the movie.
    every
        Show one of so many frames.
    progress
        Told how many pictures are done, of how many.

    Raises
    ------
    OutputRefused
        The file exists, is of another kind, or cannot be encoded; the session has no frames.
    SessionRefused
        The session cannot be read.
    """
    refuse_existing(output, overwrite=overwrite)
    encode = _encoder(output)
    with Session.open(session) as opened:
        camera = camera_of(opened)
        if camera is None:
            raise OutputRefused(f"{session} has no frames: there is nothing to show")
        rows = list(range(0, len(opened.frames(camera)), every))
        film = _Film(opened, camera, rows)
        part = output.with_name(f"{output.stem}.part{output.suffix}")
        try:
            encode(part, film.pictures(progress), frame_rate_Hz)
            part.replace(output)
        finally:
            with suppress(FileNotFoundError):
                part.unlink()
    return MovieSummary(
        path=str(output),
        frames=len(rows),
        seconds=len(rows) / frame_rate_Hz,
        times_real=film.interval_s * frame_rate_Hz,
        size_bytes=output.stat().st_size,
    )


class _Film:
    """The pictures of a session, one after the other."""

    def __init__(self, session: Session, camera: str, rows: list[int]) -> None:
        self._stack, table = session.frames(camera), session.frame_table(camera)
        self._rows, self._table = rows, table
        middle = np.asarray(table["t_start_ns"] + table["exposure_ns"] // 2, np.int64)
        columns = session.sample_columns()
        starts = [int(middle[0]), *(int(t) for t in columns["t_ns"][:1])]
        self._origin_ns = min(starts)
        self._t_s = np.array(seconds(middle[rows], self._origin_ns))
        self.interval_s = float(np.median(np.diff(self._t_s))) if len(rows) > 1 else math.nan
        self._marks = marks_content(session, camera, rows)
        self._readouts = list(_readouts(session, columns, middle[rows]))
        plots = [*_traces(columns, self._origin_ns), *_tracked(session, self._origin_ns)]
        last_s = max([float(self._t_s[-1]), *(float(plot.t_s[-1]) for plot in plots)])
        self._grey = grey_of(self._stack, side_px=WIDTH)
        pixel_m = float(str(table.attributes.get("pixel_size", math.nan)))
        self._page = MoviePage(
            session.title,
            plots,
            span_s=(0.0, last_s),
            shape=(self._stack.shape[1], self._stack.shape[2]),
            pixel_m=pixel_m,
        )

    def pictures(self, progress: Callable[[int, int], None]) -> Pictures:
        """Yield the pictures in order."""
        for number, row in enumerate(self._rows):
            yield self._page.picture(
                self._grey.shown(self._stack[row]),
                float(self._t_s[number]),
                marks=self._marks,
                row=number,
                lines=[self._about(row), *(line[number] for line in self._readouts)],
            )
            progress(number + 1, len(self._rows))

    def _about(self, row: int) -> str:
        text = f"frame {int(self._table['index'][row])}"
        dose = float(self._table["dose"][row]) / 1e20
        return f"{text} · {dose:.1f} e/Å²" if math.isfinite(dose) else text


def _traces(columns: dict[str, Any], origin_ns: int) -> Iterator[Plot]:
    if len(columns["t_ns"]) < 2:
        return
    for name, column, unit, colour in (
        ("voltage", "voltage", "V", VOLTAGE),
        ("current", "current", "A", CURRENT),
    ):
        value = np.asarray(columns[column], np.float64)
        rows = reduce_trace([value], PLOT_POINTS)
        factor, text = (1.0, "V") if unit == "V" else axis_unit(unit, largest(value))
        yield Plot(
            name=name,
            unit=text,
            colour=colour,
            t_s=np.array(seconds(columns["t_ns"][rows], origin_ns)),
            value=value[rows] / factor,
        )


def _first_quantities(session: Session) -> Iterator[tuple[str, Any, str]]:
    """Yield the track, its table and its first quantity, of the first tracks."""
    shown = 0
    for name in session.tracks:
        table = session.table(f"tracks/{name}")
        if "valid" not in table or shown == MOST_TRACKS:
            continue
        quantities = quantities_of(table, str(table.attributes.get("tracker", "")))
        if quantities:
            shown += 1
            yield name, table, quantities[0]


def _tracked(session: Session, origin_ns: int) -> Iterator[Plot]:
    for name, table, quantity in _first_quantities(session):
        value = valid_column(table, quantity)
        sigma = np.asarray(table[f"{quantity}_sigma"], np.float64)
        factor, unit = axis_unit(table.units.get(quantity, ""), largest(value))
        rows = reduce_trace([value], PLOT_POINTS)
        yield Plot(
            name=f"{name}: {quantity.replace('_', ' ')}",
            unit=unit,
            colour=TRACK,
            t_s=np.array(seconds(table["t_ns"][rows], origin_ns)),
            value=value[rows] / factor,
            low=(value - sigma)[rows] / factor,
            high=(value + sigma)[rows] / factor,
        )


def _readouts(
    session: Session, columns: dict[str, Any], middle_ns: NDArray[np.int64]
) -> Iterator[list[str]]:
    """Yield lines below the frame, each as it reads in every picture."""
    t_ns = np.asarray(columns["t_ns"], np.int64)
    if len(t_ns) > 1:
        at = np.clip(np.searchsorted(t_ns, middle_ns), 0, len(t_ns) - 1)
        factor, unit = axis_unit("A", largest(columns["current"]))
        yield [
            f"V = {columns['voltage'][i]:.4f} V · I = {columns['current'][i] / factor:.3f} {unit}"
            for i in at
        ]
    for name, table, quantity in _first_quantities(session):
        value, sigma = valid_column(table, quantity), table[f"{quantity}_sigma"]
        unit, track_ns = table.units.get(quantity, ""), np.asarray(table["t_ns"], np.int64)
        at = np.clip(np.searchsorted(track_ns, middle_ns), 0, len(track_ns) - 1)
        yield [
            f"{name} {quantity.replace('_', ' ')}: "
            + (
                value_text(float(value[i]), float(sigma[i]), unit)
                if math.isfinite(value[i])
                else "not found in this frame"
            )
            for i in at
        ]


# --- files -----------------------------------------------------------------------------------


def _encoder(output: Path) -> Callable[[Path, Pictures, float], None]:
    if output.suffix == ".gif":
        return _write_gif
    if output.suffix != ".mp4":
        raise OutputRefused(f"{output} is no movie; name a file that ends in .mp4 or .gif")
    try:
        import_module(PYAV)
    except ImportError as error:
        raise OutputRefused(
            "an .mp4 is written by PyAV: install lamella[movie], or name a .gif"
        ) from error
    return _write_mp4


def _write_mp4(path: Path, pictures: Pictures, frame_rate_Hz: float) -> None:
    av: Any = import_module(PYAV)
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        rate = Fraction(frame_rate_Hz).limit_denominator(1000)
        stream = container.add_stream("libx264", rate=rate, options={"crf": QUALITY})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for picture in pictures:
            for packet in stream.encode(av.VideoFrame.from_image(picture)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def _write_gif(path: Path, pictures: Pictures, frame_rate_Hz: float) -> None:
    shown = (p.quantize(128, dither=Image.Dither.NONE) for p in pictures)
    first = next(shown)
    # A GIF counts in hundredths of a second.
    each_ms = max(round(100 / frame_rate_Hz), 2) * 10
    first.save(path, save_all=True, append_images=shown, duration=each_ms, loop=0)
