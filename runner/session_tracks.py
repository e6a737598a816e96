"""A tracker over the stored frames of a session: drift and track, written back into it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from correlate.registry import tracker_class
from correlate.trackers.front import with_velocity
from correlate.trackers.growth import with_velocity as with_end_velocity
from correlate.trackers.protocol import CannotTrack, SceneSettings, Track
from runner.spread_frames import SessionFrames
from runner.team import ALONE, Team
from session.editor import SessionEditor
from session.reader import Session

if TYPE_CHECKING:
    from numpy.typing import NDArray

VELOCITY_WINDOW_S = 10.0
END_WINDOW_S = 2.0  # of an end that grows: what a rule on images looks back over, too


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackSummary:
    """What a tracker made of a session."""

    name: str
    tracker: str
    frames: int
    valid: int
    reasons: Mapping[str, int]
    largest_drift_px: float
    attributes: Mapping[str, float]


def track_session(
    path: Path,
    tracker: str,
    *,
    name: str | None = None,
    options: Mapping[str, float | str] | None = None,
    team: Team = ALONE,
) -> TrackSummary:
    """Run a tracker over the stored frames, and write drift and track.

    Parameters
    ----------
    tracker
        Registered name.
    name
        Of the track; that of the tracker where None.
    options
        What the tracker is told, in SI units.
    team
        Who else looks at frames; the result does not depend on it.

    Raises
    ------
    UnknownTracker
        There is no such tracker.
    WorkersRefused
        A worker does not find the file.
    CannotTrack
        The session has no frames, or the tracker does not find its object in them.
    """
    chosen = tracker_class(tracker)
    track_name = name or tracker
    with Session.open(path) as session:
        if not session.cameras:
            raise CannotTrack(f"{path} has no frames to track")
        camera = session.cameras[0]
        stack, table = session.frames(camera), session.frame_table(camera)
        sample = session.attributes("sample")
        frames = SessionFrames(stack, team)
        settings = SceneSettings(
            shape=(stack.shape[1], stack.shape[2]),
            pixel_size_m=float(str(table.attributes.get("pixel_size", math.nan))),
            film_thickness_m=float(str(sample.get("working_thickness_m", math.nan))),
            depth_m=float(str(sample.get("depth_m", math.nan))),
            options=options or {},
        )
        track: Track = chosen(settings).track(frames)
        t_ns = table["t_start_ns"] + table["exposure_ns"] // 2
    if "position" in track.columns:
        track = with_velocity(track, t_ns, VELOCITY_WINDOW_S)
    elif "along_px" in track.columns:
        track = with_end_velocity(track, t_ns, END_WINDOW_S, settings.pixel_size_m)
    with SessionEditor.open(path) as editor:
        drift: dict[str, NDArray[np.generic]] = {"t_ns": t_ns, **track.drift}
        drift["valid"] = track.drift["valid"].astype(np.uint8)
        units = {name: track.units[name] for name in track.drift if name in track.units}
        editor.put_table(f"drift/{camera}", drift, units=units)
        if tracker != "drift":
            editor.put_table(
                f"tracks/{track_name}",
                {"t_ns": t_ns, **track.columns, "valid": track.valid.astype(np.uint8)},
                {**track.attributes, "tracker": tracker, "reasons": _reasons(track)},
                units=track.units,
            )
    dx = np.asarray(track.drift["dx"], dtype=np.float64)
    dy = np.asarray(track.drift["dy"], dtype=np.float64)
    return TrackSummary(
        name=track_name,
        tracker=tracker,
        frames=len(t_ns),
        valid=int(np.sum(track.valid)),
        reasons=track.reasons,
        largest_drift_px=float(np.nanmax(np.hypot(dx, dy))),
        attributes=track.attributes,
    )


def _reasons(track: Track) -> str:
    """Say why frames are not valid, and how many; empty where all are."""
    return "; ".join(f"{count}: {reason}" for reason, count in track.reasons.items())


def render_track(summary: TrackSummary) -> Table:
    """Return a track's summary for a terminal."""
    table = Table(title=f"track {summary.name}", title_justify="left", show_header=False)
    table.add_row("frames", f"{summary.frames}, {summary.valid} valid")
    for reason, count in summary.reasons.items():
        table.add_row("not valid", f"{count}: {reason}")
    table.add_row("largest drift", f"{summary.largest_drift_px:.2f} px")
    for name, value in summary.attributes.items():
        table.add_row(name, f"{value:.4g}")
    return table
