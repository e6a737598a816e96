"""A recording on the node: pixels into a session there, everything else also to the bus."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cameras.errors import CameraError, CameraLost
from cameras.protocol import FrameSource, NowNs
from cameras.records import Frame, FrameFault
from correlate.trackers.protocol import CannotTrack, SceneSettings
from runner.config_node import NodeSettings
from runner.errors import first_cause
from runner.header import CAMERA
from runner.node_time import CameraTime
from runner.node_tracks import CHUNK_FRAMES, LiveTracks
from runner.plain import plain
from runner.session_tracks import track_session
from runner.timebase import fit_time_base
from session.editor import SessionEditor
from session.provenance import collect_provenance
from session.reader import Session
from session.recorder import Recorder
from session.records import CameraHeader, FrameHeader, SessionHeader

FIRST_EXCHANGES = 8
EXCHANGE_INTERVAL_S = 1.0
TOGETHER, TOGETHER_S = 64, 0.1  # headers in one message, and the longest that one waits
ROWS_TOGETHER = 256

Put = Callable[[str, dict[str, object]], None]


class Keeper:
    """One recording.

    Parameters
    ----------
    camera
        Entered but not started.
    put
        Hands a message to the bus; returns at once.
    session
        What the run calls itself; becomes a part of the file's name.
    in_process
        Record on a thread of this process instead of another process.
    """

    def __init__(
        self,
        settings: NodeSettings,
        camera: FrameSource,
        *,
        now_ns: NowNs,
        put: Put,
        session: str = "",
        in_process: bool = False,
    ) -> None:
        if settings.keep is None:
            raise ValueError("this node keeps no frames")
        self._settings = settings
        self._camera = camera
        self._now_ns = now_ns
        self._put_on_bus = put
        self._in_process = in_process
        self._start_time = datetime.now(UTC)
        self.path = settings.keep / _file_name(settings.name, session, self._start_time)
        self._time = CameraTime(camera.info)
        self._stopped = asyncio.Event()
        self._headers: list[dict[str, object]] = []
        self._have_headers = asyncio.Event()
        self.frames = 0
        info = camera.info
        self.tracks = LiveTracks(
            settings.tracks,
            SceneSettings(
                shape=(info.height, info.width),
                pixel_size_m=info.pixel_size_m,
                film_thickness_m=settings.film_thickness_m,
            ),
            self._put,
            chunk_frames=CHUNK_FRAMES,
        )

    def stop(self) -> None:
        """End the recording after the present frame."""
        self._stopped.set()

    def _put(self, topic: str, message: Mapping[str, object]) -> None:
        self._put_on_bus(topic, {"recording": self.path.name, **message})

    async def record(
        self,
        *,
        started: Callable[[], Awaitable[None]],
        ended: Callable[[], Awaitable[None]],
    ) -> None:
        """Film until stopped, or until the camera ends; then track the whole recording.

        Parameters
        ----------
        started, ended
            Called when the camera exposes, and when it does no more and all headers are told.

        Raises
        ------
        CameraError
            The camera was lost; the file is closed in order and says so.
        session.errors.SessionError
            The file cannot be written.
        """
        await asyncio.to_thread(self.path.parent.mkdir, parents=True, exist_ok=True)
        header = await asyncio.to_thread(self._header)
        async with Recorder(self.path, header, in_process=self._in_process) as recorder:
            if self._camera.has_clock:
                for _ in range(FIRST_EXCHANGES):
                    await self._exchange(recorder)
            await self._camera.start()
            await started()
            try:
                await self._film_until_stopped(recorder)
            except BaseExceptionGroup as group:
                cause = first_cause(group)
                if not isinstance(cause, CameraError):
                    raise
                await recorder.event(self._now_ns(), "fault", CAMERA, str(cause))
                await recorder.finish(f"camera lost: {cause}")
                raise cause from group
            await recorder.finish("stopped" if self._stopped.is_set() else "the camera ended")
        await ended()
        if self.frames:
            for topic, message in await asyncio.to_thread(self._analyse):
                self._put(topic, message)

    def _header(self) -> SessionHeader:
        info = self._camera.info
        thickness_m = self._settings.film_thickness_m
        return SessionHeader(
            title=f"camera node {self._settings.name}",
            experiment_text=self._settings.text,
            start_time=self._start_time.isoformat(),
            host_start_ns=self._now_ns(),
            simulated=False,
            sample={} if math.isnan(thickness_m) else {"working_thickness_m": thickness_m},
            cameras=(
                CameraHeader(
                    name=CAMERA,
                    model=info.model,
                    height=info.height,
                    width=info.width,
                    dtype=info.dtype,
                    frame_rate_Hz=info.frame_rate_Hz,
                    pixel_size_m=info.pixel_size_m,
                    stamp=info.stamp,
                    clock=info.clock,
                    row_time_ns=info.row_time_ns,
                ),
            ),
            clocks=(CAMERA,) if self._camera.has_clock else (),
            provenance=collect_provenance({}),
        )

    async def _film_until_stopped(self, recorder: Recorder) -> None:
        async with asyncio.TaskGroup() as group:
            helpers = [
                group.create_task(self._stop_when_told(), name="runner.node_stop"),
                group.create_task(self._flush_headers(), name="runner.node_headers"),
                group.create_task(self.tracks.run(), name="runner.node_tracks"),
            ]
            if self._camera.has_clock:
                helpers.append(
                    group.create_task(self._keep_time(recorder), name="runner.node_clock")
                )
            async for frame in self._camera.frames():
                await self._take(recorder, frame)
            for helper in helpers:
                helper.cancel()
        self._send_headers()

    async def _stop_when_told(self) -> None:
        await self._stopped.wait()
        await self._camera.stop()

    async def _take(self, recorder: Recorder, frame: Frame | FrameFault) -> None:
        if isinstance(frame, FrameFault):
            await recorder.event(
                frame.arrival_ns, "frame_fault", CAMERA, frame.reason, {"index": frame.index}
            )
            self._put("faults", {"index": frame.index, "reason": frame.reason})
            return
        info = frame.info
        if info.arrival_ns is None:
            info = replace(info, arrival_ns=self._now_ns())
        t_ns, sigma_ns = self._time.stamp(info, info.arrival_ns or 0)
        header = FrameHeader(
            t_start_ns=t_ns,
            exposure_ns=info.exposure_ns,
            t_sigma_ns=sigma_ns,
            index=info.index,
            device_start_ns=info.device_start_ns,
            dropped_before=info.dropped_before,
            blanked=info.blanked,
            arrival_ns=info.arrival_ns,
        )
        await recorder.frame(CAMERA, header, frame.pixels)
        self.frames += 1
        self.tracks.see(info.index, t_ns + info.exposure_ns // 2, frame.pixels)
        self._headers.append(
            {
                "index": info.index,
                "t_start_ns": t_ns,
                "t_sigma_ns": sigma_ns if math.isfinite(sigma_ns) else None,
                "exposure_ns": info.exposure_ns,
                "device_start_ns": info.device_start_ns,
                "arrival_ns": info.arrival_ns,
                "dropped_before": info.dropped_before,
                "blanked": info.blanked,
            }
        )
        self._have_headers.set()
        if len(self._headers) >= TOGETHER:
            self._send_headers()

    async def _flush_headers(self) -> None:
        while True:
            await self._have_headers.wait()
            await asyncio.sleep(TOGETHER_S)
            self._send_headers()

    def _send_headers(self) -> None:
        headers, self._headers = self._headers, []
        self._have_headers.clear()
        if headers:
            self._put("frames", {name: [h[name] for h in headers] for name in headers[0]})

    # --- time -------------------------------------------------------------------------

    async def _keep_time(self, recorder: Recorder) -> None:
        while True:
            await asyncio.sleep(EXCHANGE_INTERVAL_S)
            with suppress(CameraLost):  # a single answer that does not come is no loss
                await self._exchange(recorder)

    async def _exchange(self, recorder: Recorder) -> None:
        answer = await self._camera.exchange_clock()
        row = self._time.add(answer)
        stamps = [answer.t0_ns, answer.t1_ns, answer.t2_ns, answer.t3_ns]
        # Told before it is written: a node that ends meanwhile keeps nothing that it did not tell.
        self._put("clock", {"clock": CAMERA, "exchanges": [stamps]})
        await recorder.exchanges(CAMERA, row)

    # --- tracks -----------------------------------------------------------------------

    def _analyse(self) -> list[tuple[str, dict[str, object]]]:
        """Fit the clocks and run the trackers over the whole file; return what to tell."""
        fit_time_base(self.path)
        told: list[tuple[str, dict[str, object]]] = []
        for track in self._settings.tracks:
            topic = f"tracks/{track.name}"
            try:
                track_session(self.path, track.tracker, name=track.name, options=track.options)
            except CannotTrack as error:
                why = f"{track.name}: {error}"
                with SessionEditor.open(self.path) as editor:
                    editor.add_event(self._now_ns(), "not_tracked", "node", why)
                told.append((topic, {"provisional": False, "not_tracked": str(error)}))
                continue
            path = f"drift/{CAMERA}" if track.tracker == "drift" else topic
            told += [(topic, message) for message in self._track_messages(path)]
        return told

    def _track_messages(self, path: str) -> list[dict[str, object]]:
        with Session.open(self.path) as session:
            table = session.table(path)
            columns = dict(table.columns)
            columns["index"] = session.frame_table(CAMERA)["index"]
        return [
            {
                "provisional": False,
                "units": dict(table.units),
                **{name: plain(c[first : first + ROWS_TOGETHER]) for name, c in columns.items()},
            }
            for first in range(0, self.frames, ROWS_TOGETHER)
        ]


def _file_name(node: str, session: str, now: datetime) -> Path:
    safe = "".join(c for c in session if c.isalnum() or c in "-_")[:64]
    parts = [part for part in (safe, node, now.strftime("%Y%m%dT%H%M%S.%fZ")) if part]
    return Path("-".join(parts) + ".h5")
