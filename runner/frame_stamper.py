"""Gives the frames of a camera their times on the host clock, while they come.

Provisional: the last fit of a camera's clock is over the whole session.
"""

import math

import numpy as np

from cameras.protocol import FrameSource
from cameras.records import Frame, FrameInfo, StampKind
from runner.arrivals import Arrivals
from runner.blanking import RhythmMeter
from runner.clock import HostClock
from session.recorder import Recorder
from session.records import FrameHeader
from sync.clockfit import ClockFit
from sync.live_clock import LiveClock
from sync.pairs import EXCHANGE_DTYPE
from sync.shutter import exposure_starts

FIRST_EXCHANGES = 8
EXCHANGE_INTERVAL_S = 1.0


class FrameStamper:
    """Follows the clock of one camera, by what it answers or by when its frames come.

    Parameters
    ----------
    camera
        Entered but not started.
    name
        Of the camera in the session.
    dose_rate_e_m2_s
        On the specimen, electrons per square metre and second; NaN where unknown.
    rhythm
        Is told of each exposure.
    """

    def __init__(
        self,
        camera: FrameSource,
        name: str,
        *,
        clock: HostClock,
        recorder: Recorder,
        dose_rate_e_m2_s: float,
        rhythm: RhythmMeter,
    ) -> None:
        self._camera = camera
        self._name = name
        self._clock = clock
        self._recorder = recorder
        self._dose_rate_e_m2_s = dose_rate_e_m2_s
        self._rhythm = rhythm
        self._fit = LiveClock()
        self._arrivals: Arrivals | None = None  # of a camera whose clock cannot be asked
        self._first_exposure_ns: int | None = None

    @property
    def sigma_ns(self) -> float:
        """Of the camera's clock now; NaN before it is known."""
        return self._fit.offset_sigma_ns if self._fit.count >= 2 else math.nan

    async def ask_first(self) -> None:
        """Ask the clock until something is known of it, before the camera starts."""
        if self._camera.has_clock:
            for _ in range(FIRST_EXCHANGES):
                await self._exchange()

    async def keep_time(self) -> None:
        """Ask the clock once a second, for ever."""
        with self._clock.party():
            next_ns = self._clock.now_ns()
            while True:
                next_ns += int(EXCHANGE_INTERVAL_S * 1e9)
                await self._clock.sleep_until(next_ns)
                await self._exchange()

    def stamp(self, frame: Frame) -> FrameHeader:
        """Return a frame's times on the host clock, and the dose until its end."""
        info = frame.info
        if self._first_exposure_ns is None:
            self._first_exposure_ns = info.device_start_ns
            self._arrivals = None if self._camera.has_clock else Arrivals(self._camera.info)
        self._rhythm.frame(info.index, info.device_start_ns, info.exposure_ns)
        # The beam stays on between exposures: dropped frames cost dose too.
        lit_ns = info.device_start_ns + info.exposure_ns - self._first_exposure_ns
        t_start_ns, sigma_ns = self._host_time(info)
        return FrameHeader(
            t_start_ns=t_start_ns,
            exposure_ns=info.exposure_ns,
            t_sigma_ns=sigma_ns,
            index=info.index,
            device_start_ns=info.device_start_ns,
            dropped_before=info.dropped_before,
            dose_per_m2=self._dose_rate_e_m2_s * lit_ns / 1e9,
            blanked=info.blanked,
            arrival_ns=info.arrival_ns,
        )

    def _host_time(self, info: FrameInfo) -> tuple[int, float]:
        arrival_ns = self._clock.now_ns() if info.arrival_ns is None else info.arrival_ns
        if self._arrivals is not None:
            return self._arrivals.start_of(info, arrival_ns)
        if self._fit.count < 2:
            return arrival_ns - info.exposure_ns, math.inf
        return start_by_stamp(self._fit, info, self._camera.info.stamp)

    async def _exchange(self) -> None:
        answer = await self._camera.exchange_clock()
        row = np.zeros(1, EXCHANGE_DTYPE)
        row["t0_ns"], row["t1_ns"] = answer.t0_ns, answer.t1_ns
        row["t2_ns"], row["t3_ns"] = answer.t2_ns, answer.t3_ns
        await self._recorder.exchanges(self._name, row)
        self._fit.add(row)


def start_by_stamp(
    fit: ClockFit | LiveClock, info: FrameInfo, marks: StampKind
) -> tuple[int, float]:
    """Return the start of an exposure on the host clock by the camera's stamp, and its sigma."""
    stamp_ns = np.array([info.device_start_ns], np.int64)
    exposure_ns = np.array([info.exposure_ns], np.int64)
    starts = exposure_starts(fit.to_host_ns(stamp_ns), exposure_ns, marks.value)
    sigma_ns = math.hypot(float(fit.sigma_ns(stamp_ns)[0]), float(starts.sigma_ns[0]))
    return int(starts.start_ns[0]), sigma_ns
