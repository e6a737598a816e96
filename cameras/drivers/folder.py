"""A folder in which a microscope's files land, as a camera.

Nothing is commanded: whoever runs the microscope begins and ends the exposures. Files are
found by the operating system's events, and by looking around where those do not come. A
file is read once it is whole. See `cameras.landing` for when that is.
"""

import asyncio
import math
import queue
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from cameras.errors import CameraError, CameraLost
from cameras.files.recording import FrameFileError
from cameras.folder_reader import FolderReader, MakeWatch, Patience
from cameras.landed_files import describe, matcher
from cameras.landing import Landing
from cameras.options import CameraOptions
from cameras.protocol import ClockExchange, FrameBuffers
from cameras.records import CameraInfo, Frame, FrameFault
from cameras.watching import Watch
from cameras.wholeness import Whole, look

READ_AHEAD = 16  # frames in memory; all others wait in the folder
LEAVE_S = 5.0
TRIED_FIRST = 8  # of the newest files, to learn what frames look like


class _Leaving(Exception):
    """Nobody wants frames any more."""


class FolderCamera:
    """The files that land in a folder as a frame source.

    Parameters
    ----------
    path, pattern
        Which folder, and which names in it: ``*.tif``, or ``**/*.dm4`` for folders within
        it, too. Without a pattern, all formats that are understood.
    now_ns
        Host clock; read from other threads, too.
    frame_rate_Hz, exposure_s, pixel_size_m
        Taken for true, as images do not tell them. An exposure that nobody tells is the
        whole frame period.
    patience
        How long to wait for what.
    """

    needs: ClassVar[tuple[str, ...]] = ("path",)
    has_clock: ClassVar[bool] = False

    def __init__(
        self,
        path: str | Path,
        pattern: str = "",
        *,
        now_ns: Callable[[], int],
        frame_rate_Hz: float = math.nan,
        exposure_s: float = math.nan,
        pixel_size_m: float = math.nan,
        patience: Patience | None = None,
        make_watch: MakeWatch = Watch,
    ) -> None:
        self._folder = Path(path)
        self._pattern = pattern
        self._name = f"camera folder {path}"
        self._now_ns = now_ns
        self._frame_rate_Hz = frame_rate_Hz
        known = math.isnan(exposure_s) and frame_rate_Hz > 0
        self._exposure_s = 1 / frame_rate_Hz if known else exposure_s
        self._pixel_size_m = pixel_size_m
        self._patience = patience or Patience()
        self._make_watch = make_watch
        self._info: CameraInfo | None = None
        self._reader: FolderReader | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._items: deque[Frame | FrameFault] = deque()
        self._room: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._arrived = asyncio.Event()
        self._wake = threading.Event()
        self._leaving = self._finished = False
        self._failure: Exception | None = None

    @classmethod
    def from_options(cls, options: CameraOptions, *, now_ns: Callable[[], int]) -> Self:
        """Make one; it looks at the folder when it is entered."""
        return cls(
            options.path,
            options.pattern,
            now_ns=now_ns,
            frame_rate_Hz=options.frame_rate_Hz,
            exposure_s=options.exposure_s,
            pixel_size_m=options.pixel_size_m,
        )

    async def __aenter__(self) -> Self:
        """Learn from the newest file what frames look like; wait for one if there is none.

        Raises
        ------
        CameraLost
            There is no such folder, or no file comes that can be read.
        CameraError
            Neither frame rate nor exposure is known.
        """
        if not 0 < self._exposure_s < math.inf:
            raise CameraError(
                f"{self._name}: how long a frame is exposed is not known; tell the frame "
                "rate or the exposure"
            )
        self._loop = asyncio.get_running_loop()
        why: list[str] = []
        try:
            async with asyncio.timeout(self._patience.first_s):
                while self._info is None:
                    self._info = await asyncio.to_thread(self._describe, why)
                    if self._info is None:
                        await asyncio.sleep(self._patience.poll_s)
        except TimeoutError as error:
            files = self._pattern or "frame file"
            found = f"; {why[-1]}" if why else ""
            raise CameraLost(
                f"{self._name}: no {files} that can be read was there or came within "
                f"{self._patience.first_s:g} s{found}; take one test image into it, from "
                "which height, width and kind of pixel are learnt"
            ) from error
        return self

    def _describe(self, why: list[str]) -> CameraInfo | None:
        landing = Landing(
            self._folder,
            matcher(self._pattern),
            deep="/" in self._pattern,
            quiet_ns=0,
            open_end_ns=0,
            patience_ns=0,
        )
        try:
            files = sorted(landing.files(), key=lambda file: file[1].mtime_ns, reverse=True)
        except OSError as error:
            raise CameraLost(
                f"{self._name}: cannot be looked into ({error.strerror or error}); create it, "
                "or give the folder into which the microscope writes"
            ) from error
        for name, _ in files[:TRIED_FIRST]:
            path = self._folder / name
            try:
                found = look(path)
                if found.whole is Whole.NO:
                    why.append(f"{path} {found.reason}")
                    continue
                return describe(
                    path,
                    f"files {self._pattern or 'of frames'} in {self._folder}",
                    frame_rate_Hz=self._frame_rate_Hz,
                    pixel_size_m=self._pixel_size_m,
                )
            except (OSError, FrameFileError) as error:
                why.append(str(error))
        return None

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop and watch no more."""
        self._leaving = True
        self._room.put(None)
        self._wake.set()
        if self._thread is not None:
            # Not without end: a share that is lost can hold a thread for minutes.
            await asyncio.to_thread(self._thread.join, LEAVE_S)
        if self._reader is not None:
            await asyncio.to_thread(self._reader.end)

    @property
    def info(self) -> CameraInfo:
        """What the newest file said of itself."""
        if self._info is None:
            raise CameraLost(f"{self._name}: is not connected")
        return self._info

    # --- frames ----------------------------------------------------------------------------

    async def start(self) -> None:
        """Watch from now on; files that are there already are no frames of this run.

        Raises
        ------
        CameraLost
            The folder cannot be looked into.
        CameraError
            It is watched already.
        """
        info = self.info
        if self._reader is not None:
            raise CameraError(f"{self._name}: is watched already; open it again to begin anew")
        reader = FolderReader(
            self._folder,
            self._pattern,
            info=info,
            exposure_ns=round(self._exposure_s * 1e9),
            patience=self._patience,
            now_ns=self._now_ns,
            put=self._put,
            wake=self._wake.set,
            make_watch=self._make_watch,
        )
        for _ in range(READ_AHEAD):
            self._room.put(None)
        try:
            await asyncio.to_thread(reader.begin)
        except OSError as error:
            raise CameraLost(f"{self._name}: cannot be looked into ({error})") from error
        self._reader = reader

    async def stop(self) -> None:
        """End after what has landed; `frames` then ends by itself.

        A file that has begun to land is waited for as long as the patience lasts.
        """
        if self._reader is not None:
            self._reader.stop()
            self._wake.set()

    async def frames(
        self, buffers: FrameBuffers | None = None
    ) -> AsyncIterator[Frame | FrameFault]:
        """Yield each frame in the order of its number, as far as files come in time.

        Raises
        ------
        CameraLost
            It was not started.
        """
        if self._reader is None:
            raise CameraLost(f"{self._name}: is not started")
        self._reader.fill(buffers)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        while True:
            while self._items:
                item = self._items.popleft()
                self._room.put(None)
                yield item
            if self._finished:
                if self._failure is not None:
                    raise self._failure
                return
            self._arrived.clear()
            if not self._items and not self._finished:
                await self._arrived.wait()

    async def exchange_clock(self) -> ClockExchange:
        """Refuse: a folder has no clock.

        Raises
        ------
        CameraLost
            Always.
        """
        raise CameraLost(f"{self._name}: files have no clock that could be asked")

    # --- on the reading thread -----------------------------------------------------------------

    def _work(self) -> None:
        reader = self._reader
        try:
            while reader is not None and not self._leaving:
                self._wake.clear()  # first: what comes during a turn asks for another
                idle_ns = reader.turn()
                if idle_ns is None:
                    break
                self._wake.wait(idle_ns / 1e9)
        except _Leaving:
            pass
        except Exception as error:  # noqa: BLE001 - told to whoever takes the frames
            self._failure = error
        self._finished = True
        self._tell()

    def _put(self, item: Frame | FrameFault) -> None:
        self._room.get()
        if self._leaving:
            raise _Leaving
        self._items.append(item)
        self._tell()

    def _tell(self) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._arrived.set)
