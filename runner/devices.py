"""From the names in an experiment file to the objects that fill the seams."""

from collections.abc import Callable

from cameras.options import CameraOptions
from cameras.protocol import FrameSource
from cameras.registry import camera_class
from potentiostat.protocol import Potentiostat
from potentiostat.registry import potentiostat_class
from potentiostat.visa import IDENTITY_QUERY, VisaLink
from runner.messages import GuardianSettings

NowNs = Callable[[], int]


def open_potentiostat(settings: GuardianSettings, *, now_ns: NowNs) -> Potentiostat:
    """Open the VISA link and put the named driver on it; nothing is sent yet.

    Raises
    ------
    potentiostat.errors.InstrumentError
        The driver or the resource does not exist, or does not answer.
    """
    driver = potentiostat_class(settings.driver)
    link = VisaLink(
        settings.resource,
        now_ns=now_ns,
        identity_query=getattr(driver, "identity_query", IDENTITY_QUERY),
        serial_baud=getattr(driver, "serial_baud", None),
    )
    link.open()
    potentiostat: Potentiostat = driver(
        link,
        now_ns=now_ns,
        nplc=settings.nplc,
        line_frequency_Hz=settings.line_frequency_Hz,
        block=settings.block,
        lines=settings.lines,
    )
    return potentiostat


def open_camera(driver: str, options: CameraOptions, *, now_ns: NowNs) -> FrameSource:
    """Return the named camera; it connects when it is entered."""
    camera: FrameSource = camera_class(driver).from_options(options, now_ns=now_ns)
    return camera
