"""Frames of a camera whose clock cannot be asked, put on the host's clock as they come."""

from cameras.records import CameraInfo, FrameInfo, StampClock, StampKind
from sync.live_arrivals import LiveArrivals


class Arrivals:
    """The provisional times of a run; the final ones come from the whole record.

    Parameters
    ----------
    info
        Of the camera: what its stamps mark, and whether it has any of its own.
    """

    def __init__(self, info: CameraInfo) -> None:
        self._stamped = info.clock is StampClock.CAMERA and info.stamp is not StampKind.ARRIVAL
        self._begins = info.stamp is StampKind.EXPOSURE_START
        period_ns = 0.0 if self._stamped else 1e9 / info.frame_rate_Hz
        self._live = LiveArrivals(period_ns=period_ns)

    def start_of(self, info: FrameInfo, arrival_ns: int) -> tuple[int, float]:
        """Return when an exposure began, as its end and the frames before it tell, and sigma.

        Of a stamp that may mark anything, the latest is taken: that it marks the end.
        """
        end_ns = info.device_start_ns + (info.exposure_ns if self._begins else 0)
        host_ns, sigma_ns = self._live.add(
            info.index, end_ns if self._stamped else None, arrival_ns
        )
        return host_ns - info.exposure_ns, sigma_ns
