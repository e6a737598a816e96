"""Which instruments an experiment file names, where they are, and what is wrong with that."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cameras.errors import CameraError
from cameras.options import ArmedBy, CameraOptions
from cameras.registry import camera_class
from potentiostat.protocol import NO_LINES, TriggerLines
from runner.config import MOCK, NODE, CameraTable, ExperimentTable
from runner.node_checks import check_node
from runner.problems import Key

_Found = list[tuple[Key, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PotentiostatSettings:
    """Which instrument, where, and how it reads; a model where the file names one."""

    driver: str
    resource: str
    calibration: Path | None
    nplc: float
    line_frequency_Hz: float
    range_A: float | None = None
    model: str | None = None
    block: int = 1
    lines: TriggerLines = NO_LINES
    thermocouple: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraSettings:
    """Which camera, where, and what it films. Height and width only shape a mock.

    Parameters
    ----------
    node_session
        What a camera node calls its session in its topics.
    """

    driver: str
    frame_rate_Hz: float
    pixel_size_m: float
    dose_rate_e_m2_s: float
    height: int
    width: int
    options: CameraOptions = field(default_factory=CameraOptions)
    node_session: str = "cameras"

    @property
    def is_node(self) -> bool:
        """True for a camera of another computer, which keeps its pixels there."""
        return self.driver == NODE


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroscopeSettings:
    """Which microscope, and where its server listens; port 0 for the driver's own."""

    driver: str
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MockSettings:
    """Which simulated world."""

    scenario: str = "lco_lipon_li"
    seed: int = 1
    overrides: Mapping[str, float] = field(default_factory=dict)


def potentiostat_settings(tables: ExperimentTable, folder: Path) -> PotentiostatSettings:
    """Return which potentiostat a file names; relative paths start from a folder."""
    asked = tables.potentiostat
    return PotentiostatSettings(
        driver=asked.driver,
        resource=asked.resource,
        calibration=None if asked.calibration is None else folder / asked.calibration,
        nplc=float(asked.nplc),
        line_frequency_Hz=asked.line_frequency,
        range_A=asked.range,
        model=asked.model,
        block=asked.block,
        lines=TriggerLines(exposure_in=asked.exposure_line, mark_out=asked.mark_line),
        thermocouple=asked.thermocouple,
    )


def camera_settings(tables: ExperimentTable, folder: Path) -> CameraSettings | None:
    """Return which camera a file names, or None; relative paths start from a folder."""
    asked = tables.camera
    if asked is None:
        return None
    return CameraSettings(
        driver=asked.driver,
        frame_rate_Hz=asked.frame_rate,
        pixel_size_m=asked.pixel_size,
        dose_rate_e_m2_s=asked.dose_rate,
        height=asked.height,
        width=asked.width,
        options=_camera_options(asked, folder),
        node_session=asked.node_session,
    )


def _camera_options(camera: CameraTable, folder: Path) -> CameraOptions:
    # A node's computer has no default: its clock is asked over UDP only where it is named.
    unnamed = camera.driver == NODE and "host" not in camera.model_fields_set
    return CameraOptions(
        host="" if unnamed else camera.host,
        port=camera.port,
        control_port=camera.control_port,
        data_port=camera.data_port,
        path=str(folder / camera.path) if camera.path else "",
        pattern=camera.pattern,
        node=camera.node,
        armed_by=ArmedBy(camera.armed_by),
        frame_rate_Hz=camera.frame_rate,
        exposure_s=math.nan if camera.exposure is None else camera.exposure,
        pixel_size_m=camera.pixel_size,
    )


def microscope_settings(tables: ExperimentTable) -> MicroscopeSettings | None:
    """Return which microscope a file names, or None."""
    asked = tables.microscope
    if asked is None:
        return None
    return MicroscopeSettings(driver=asked.driver, host=asked.host, port=asked.port)


def mock_settings(tables: ExperimentTable) -> MockSettings:
    """Return which simulated world a file names; the usual one where it names none."""
    asked = tables.mock
    if asked is None:
        return MockSettings()
    return MockSettings(scenario=asked.scenario, seed=asked.seed, overrides=dict(asked.overrides))


def check_instruments(tables: ExperimentTable) -> _Found:
    """Return what is wrong with the potentiostat and the camera."""
    found: _Found = []
    camera = tables.camera
    if camera is None and tables.potentiostat.exposure_line is not None:
        found.append((("potentiostat", "exposure_line"), "has no camera to hear; leave it out"))
    if not 0.01 <= tables.potentiostat.nplc <= 10:
        found.append((("potentiostat", "nplc"), "must lie between 0.01 and 10"))
    if tables.potentiostat.line_frequency not in (50.0, 60.0):
        found.append((("potentiostat", "line_frequency"), "is 50 Hz or 60 Hz"))
    if camera is not None:
        found += [
            (("camera", name), "must be more than nothing")
            for name in ("frame_rate", "pixel_size")
            if getattr(camera, name) <= 0
        ]
        if camera.dose_rate < 0:
            found.append((("camera", "dose_rate"), "cannot be negative"))
        if not (48 <= camera.height <= 4096 and 48 <= camera.width <= 4096):
            found.append((("camera",), "height and width lie between 48 and 4096 px"))
        found += check_node(tables) if camera.driver == NODE else _check_address(camera)
    elif tables.limits.dose is not None:
        found.append((("limits", "dose"), "has no camera to count for; leave it out"))
    return found


def _check_address(camera: CameraTable) -> _Found:
    """Say what a driver needs to know and is not told."""
    found: _Found = [
        (("camera", name), "is no TCP port; those lie between 1 and 65535")
        for name in ("port", "control_port", "data_port")
        if not 0 <= getattr(camera, name) < 65536
    ]
    if camera.exposure is not None and not 0 < camera.exposure <= 1 / camera.frame_rate:
        found.append((("camera", "exposure"), "is more than nothing, and fits between frames"))
    if camera.driver == MOCK:
        return found
    try:
        needs = camera_class(camera.driver).needs
    except CameraError as error:
        return [*found, (("camera", "driver"), str(error))]
    return found + [
        (("camera", name), f"is missing; the driver {camera.driver} needs it")
        for name in needs
        if not getattr(camera, name)
    ]
