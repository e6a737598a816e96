"""Tracks on the node while it films: a chunk at a time, all against the first frames.

What comes of it is provisional: the trackers run again over the whole recording when it ends.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from correlate.registry import tracker_class
from correlate.trackers.protocol import (
    CannotTrack,
    Following,
    LiveTracker,
    SceneSettings,
    Track,
    Tracker,
)
from runner.config_node import NodeTrack
from runner.plain import plain

REFERENCE_FRAMES = 8
CHUNK_FRAMES = 32

Publish = Callable[[str, Mapping[str, object]], None]


@dataclass(slots=True)
class _Chunk:
    pixels: list[NDArray[np.generic]] = field(default_factory=list)
    index: list[int] = field(default_factory=list)
    t_ns: list[int] = field(default_factory=list)


@dataclass(slots=True)
class TrackCounters:
    """What became of the frames."""

    tracked: int = 0
    left_out: int = 0  # as tracking was slower than the camera


class LiveTracks:
    """Runs registered trackers over the frames that go by.

    Parameters
    ----------
    tracks
        Which, under what names.
    scene
        What is known before looking.
    publish
        Given topic and message; must return at once.
    """

    def __init__(
        self,
        tracks: Sequence[NodeTrack],
        scene: SceneSettings,
        publish: Publish,
        *,
        chunk_frames: int = CHUNK_FRAMES,
    ) -> None:
        self._tracks = tuple(tracks)
        self._scene = scene
        self._publish = publish
        self._chunk_frames = chunk_frames
        self._reference: list[NDArray[np.generic]] = []
        self._following: dict[str, Following] = {}
        self._chunk = _Chunk()
        self._ready: asyncio.Queue[_Chunk] = asyncio.Queue(maxsize=1)
        self.counters = TrackCounters()

    def see(self, index: int, t_ns: int, pixels: NDArray[np.generic]) -> None:
        """Take a frame and the middle of its exposure; never waits."""
        if not self._tracks:
            return
        kept = np.array(pixels)  # its memory may be a buffer of others
        if len(self._reference) < REFERENCE_FRAMES:
            self._reference.append(kept)
        chunk = self._chunk
        chunk.pixels.append(kept)
        chunk.index.append(index)
        chunk.t_ns.append(t_ns)
        if len(chunk.pixels) >= self._chunk_frames:
            self._chunk = _Chunk()
            try:
                self._ready.put_nowait(chunk)
            except asyncio.QueueFull:
                self.counters.left_out += len(chunk.pixels)

    async def run(self) -> None:
        """Track chunks as they come; never returns by itself."""
        trackers = await asyncio.to_thread(self._load)
        while True:
            chunk = await self._ready.get()
            for name, tracker in trackers.items():
                try:
                    track = await asyncio.to_thread(self._track, name, tracker, chunk)
                except CannotTrack as error:
                    self._publish(
                        f"tracks/{name}",
                        {"provisional": True, "index": chunk.index, "not_tracked": str(error)},
                    )
                    continue
                self._publish(
                    f"tracks/{name}",
                    track_message(
                        track,
                        chunk.index,
                        chunk.t_ns,
                        skip=len(track.valid) - len(chunk.index),
                        provisional=True,
                    ),
                )
            self.counters.tracked += len(chunk.pixels)

    def _load(self) -> dict[str, Tracker]:
        return {
            t.name: tracker_class(t.tracker)(replace(self._scene, options=t.options))
            for t in self._tracks
        }

    def _track(self, name: str, tracker: Tracker, chunk: _Chunk) -> Track:
        frames = [*self._reference, *chunk.pixels]
        if not isinstance(tracker, LiveTracker):
            return tracker.track(lambda: frames)
        # What was learned once is followed from chunk to chunk.
        if name not in self._following:
            self._following[name] = tracker.begin(lambda: frames)
        return self._following[name].track(lambda: chunk.pixels)


def track_message(
    track: Track, index: Sequence[int], t_ns: Sequence[int], *, skip: int, provisional: bool
) -> dict[str, object]:
    """Return a track as a message; numbers that are none become null.

    Parameters
    ----------
    skip
        Rows at the beginning that belong to other frames.
    """
    return {
        "provisional": provisional,
        "index": list(index),
        "t_ns": list(t_ns),
        "valid": [bool(v) for v in track.valid[skip:]],
        "columns": {name: plain(values[skip:]) for name, values in track.columns.items()},
        "units": dict(track.units),
    }
