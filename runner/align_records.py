"""The two records of a session that are to be aligned, as arrays; pixels are read in chunks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from session.errors import SessionRefused
from session.frames import FrameStack
from session.reader import Session
from session.schema import NO_STAMP
from sync.search import Series
from sync.shutter import row_delays

Stamps = NDArray[np.int64]
Floats = NDArray[np.float64]
CHUNK_BYTES = 16 * 2**20
STEP_NOISES = 8.0  # of the changes from sample to sample, that a step must exceed
STEP_SHARE = 0.05  # of the largest change, likewise
MOST_STEPS = 40
BLANK, CODE = "beam_blank", "beam"  # events of blanking: of a single edge, and of a code
POINT_SHARE = 0.01  # of the interval: an aperture that nobody tells is taken as this short


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """The potentiostat's record; all of shape (n,).

    Parameters
    ----------
    interval_s
        Median time from sample to sample.
    aperture_known
        False where the session does not say over how long a reading integrates.
    """

    t_ns: Stamps
    aperture_ns: Stamps
    current_A: Floats
    voltage_V: Floats
    interval_s: float
    aperture_known: bool

    @property
    def t_s(self) -> Floats:
        """Times from the first sample on."""
        return np.asarray((self.t_ns - self.t_ns[0]) / 1e9)

    def steps(self) -> tuple[str, Floats]:
        """Return what steps, and when, from the first sample on: the current, else the voltage."""
        current_s = find_steps(self.t_s, self.current_A)
        if len(current_s) >= 3:
            return "current", current_s
        voltage_s = find_steps(self.t_s, self.voltage_V)
        return ("voltage", voltage_s) if len(voltage_s) > len(current_s) else ("current", current_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Movie:
    """The frames' stamps; all of shape (n,).

    Parameters
    ----------
    good
        False for frames without a time.
    device_ns, marks
        Raw stamps, and what they mark.
    row_delay_ns
        By which each row is exposed later than the first, shape (rows,).
    """

    camera: str
    good: NDArray[np.bool_]
    start_ns: Stamps
    sigma_ns: Floats
    exposure_ns: Stamps
    device_ns: Stamps
    marks: str
    row_delay_ns: Stamps

    @property
    def origin_ns(self) -> int:
        """Start of the first frame that has a time."""
        return int(self.start_ns[self.good][0])

    @property
    def middle_s(self) -> Floats:
        """Middles of the exposures of the frames with a time, from `origin_ns` on."""
        later_ns = self.exposure_ns // 2 + int(self.row_delay_ns.max()) // 2
        return np.asarray((self.start_ns - self.origin_ns + later_ns)[self.good] / 1e9)

    @property
    def frame_s(self) -> float:
        """Median time from frame to frame."""
        return float(np.median(np.diff(self.start_ns[self.good]))) / 1e9


def read_samples(session: Session) -> Samples:
    """Read the potentiostat's record.

    Raises
    ------
    SessionRefused
        It is empty or in no order.
    """
    columns = session.sample_columns()
    t_ns = columns["t_ns"]
    if len(t_ns) < 2:
        raise SessionRefused(
            f"{session.path} has {len(t_ns)} samples: nothing to align a movie with; import it "
            "with --echem"
        )
    if np.any(np.diff(t_ns) < 0):
        raise SessionRefused(f"{session.path}: samples are not in order of time")
    interval_s = float(np.median(np.diff(t_ns))) / 1e9
    aperture_s = np.nan_to_num(columns["aperture_s"])
    known = bool(np.all(aperture_s > 0))
    if not known:
        aperture_s = np.where(aperture_s > 0, aperture_s, POINT_SHARE * interval_s)
    return Samples(
        t_ns=t_ns,
        aperture_ns=np.maximum(np.round(aperture_s * 1e9), 1).astype(np.int64),
        current_A=columns["current"],
        voltage_V=columns["voltage"],
        interval_s=interval_s,
        aperture_known=known,
    )


def read_movie(session: Session, camera: str | None) -> Movie:
    """Read the stamps of a camera; of the first one where None.

    Raises
    ------
    SessionRefused
        There is no such camera, or it has too few frames.
    """
    if not session.cameras:
        raise SessionRefused(f"{session.path} has no frames to align; import them with --frames")
    name = camera or session.cameras[0]
    if name not in session.cameras:
        known = ", ".join(session.cameras)
        raise SessionRefused(f"{session.path} has no camera {name!r}; there is {known}")
    table, stack = session.frame_table(name), session.frames(name)
    good = table["t_start_ns"] != NO_STAMP
    if int(good.sum()) < 2:
        raise SessionRefused(f"{session.path}: {int(good.sum())} frames of {name} are too few")
    start_ns, exposure_ns = table["t_start_ns"], table["exposure_ns"]
    if np.any(np.diff(start_ns[good]) <= 0):
        raise SessionRefused(f"{session.path}: frames of {name} are not in order of time")
    period_ns = int(np.median(np.diff(start_ns[good])))
    row_time_ns = float(str(table.attributes.get("row_time", 0.0)))
    return Movie(
        camera=name,
        good=good,
        start_ns=start_ns,
        sigma_ns=table["t_sigma_ns"],
        # Unknown exposures are stored as 0.
        exposure_ns=np.where(exposure_ns > 0, exposure_ns, period_ns),
        device_ns=table["device_start_ns"],
        marks=str(table.attributes.get("stamp", "exposure_start")),
        row_delay_ns=row_delays(row_time_ns, stack.shape[1]),
    )


def recorded_edges(session: Session) -> Stamps | None:
    """Return when the beam was blanked and let on by turns; None where it was not."""
    edges_ns: list[int] = []
    for event in session.events():
        sent, done, off = (event.data.get(k) for k in ("sent_ns", "done_ns", "blanked"))
        if event.kind == CODE and isinstance(sent, list) and isinstance(done, list):
            # The edges of a whole code; one that was cut short is let on again, too.
            edges_ns += [a + (b - a) // 2 for a, b in zip(sent, done, strict=False)]
            edges_ns = edges_ns[: len(edges_ns) // 2 * 2]
            continue
        if event.kind != BLANK or not (isinstance(sent, int) and isinstance(done, int)):
            continue
        # A command that changes nothing is no edge; the first takes the beam off.
        if bool(off) == (len(edges_ns) % 2 == 0):
            edges_ns.append(sent + (done - sent) // 2)
    edges_ns = edges_ns[: len(edges_ns) // 2 * 2]
    return np.array(edges_ns, np.int64) if edges_ns else None


def mean_intensity(stack: FrameStack) -> Floats:
    """Return the mean of each frame, shape (n,); a chunk of frames is in memory at a time."""
    _, height, width = stack.shape
    count = max(1, CHUNK_BYTES // max(height * width * stack.dtype.itemsize, 1))
    parts = [np.mean(chunk, axis=(1, 2), dtype=np.float64) for _, chunk in stack.chunks(count)]
    return np.concatenate(parts)


def track_position(session: Session, name: str | None, movie: Movie) -> tuple[str, Series] | None:
    """Return the position that a track has in each frame, on the movie's clock.

    Parameters
    ----------
    name
        Of the track; None for the front, or any other that has a position of each frame.

    Raises
    ------
    SessionRefused
        There is no such track, or it is not one of a position in these frames.
    """
    names = [name] if name else sorted(session.tracks, key=lambda track: track != "front")
    for track in names:
        table = session.table(f"tracks/{track}")
        if "position" in table and len(table) == len(movie.good):
            position = np.where(table["valid"] != 0, table["position"], np.nan)[movie.good]
            return track, Series(t_s=movie.middle_s, value=position)
    if name:
        raise SessionRefused(
            f"{session.path}: track {name!r} has no position in each frame of {movie.camera}"
        )
    return None


def find_steps(t_s: Floats, value: Floats) -> Floats:
    """Return when a quantity steps: changes from sample to sample that noise does not make."""
    good = np.isfinite(value)
    t_s, value = t_s[good], value[good]
    if len(t_s) < 3:
        return np.zeros(0)
    change = np.diff(value)
    noise = 1.4826 * float(np.median(np.abs(change - np.median(change))))
    size = np.abs(change)
    least = max(STEP_NOISES * noise, STEP_SHARE * float(size.max()))
    above = np.flatnonzero(size > least)
    # What takes several samples is one step, at its largest change.
    runs = np.split(above, np.flatnonzero(np.diff(above) > 1) + 1) if len(above) else []
    places = np.array([run[int(np.argmax(size[run]))] for run in runs], dtype=np.intp)
    largest = np.sort(places[np.argsort(-size[places], kind="stable")][:MOST_STEPS])
    return np.asarray(0.5 * (t_s[largest] + t_s[largest + 1]))


def binned(series: Series, width_s: float) -> Series:
    """Return means over bins, for what need not be looked at frame by frame."""
    series = series.finite()
    if len(series.t_s) < 2 or width_s <= float(np.median(np.diff(series.t_s))):
        return series
    number = ((series.t_s - series.t_s[0]) / width_s).astype(np.int64)
    count = np.bincount(number)
    filled = count > 0
    t_s, value = (
        np.bincount(number, v)[filled] / count[filled] for v in (series.t_s, series.value)
    )
    return Series(t_s=np.asarray(t_s), value=np.asarray(value))
