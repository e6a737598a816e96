"""What a session file says about the experiment before its first reading."""

from datetime import datetime
from pathlib import Path

from cameras.records import CameraInfo
from potentiostat.records import Apertures
from potentiostat.thermometer import ThermometerSpec
from runner.experiment import Experiment
from runner.messages import Connected
from session.provenance import collect_provenance
from session.records import (
    AttributeValue,
    CameraHeader,
    InstrumentHeader,
    SessionHeader,
)

POTENTIOSTAT = "potentiostat"
CAMERA = "camera"


def session_header(
    experiment: Experiment,
    *,
    connected: Connected,
    camera: CameraInfo | None,
    simulated: bool,
    start_time: datetime,
    host_start_ns: int,
) -> SessionHeader:
    """Return the header of a run's session."""
    cameras: tuple[CameraHeader, ...] = ()
    if camera is not None:
        cameras = (
            CameraHeader(
                name=CAMERA,
                model=camera.model,
                height=camera.height,
                width=camera.width,
                dtype=camera.dtype,
                frame_rate_Hz=camera.frame_rate_Hz,
                pixel_size_m=camera.pixel_size_m,
                stamp=camera.stamp,
                clock=camera.clock,
                row_time_ns=camera.row_time_ns,
                compression=experiment.record.compression,
                capture=experiment.record.capture,
            ),
        )
    return SessionHeader(
        title=experiment.title,
        experiment_text=experiment.text,
        start_time=start_time.isoformat(),
        host_start_ns=host_start_ns,
        simulated=simulated,
        layers=experiment.cell.layers,
        sample=_sample(experiment),
        instruments=(
            InstrumentHeader(name=POTENTIOSTAT, attributes=_instrument(experiment, connected)),
        ),
        cameras=cameras,
        clocks=(POTENTIOSTAT, CAMERA) if cameras else (POTENTIOSTAT,),
        provenance=collect_provenance(_files(experiment)),
    )


def _files(experiment: Experiment) -> dict[str, Path]:
    path = experiment.potentiostat.calibration
    return {} if path is None else {"calibration": path}


def _sample(experiment: Experiment) -> dict[str, AttributeValue]:
    cell = experiment.cell
    return {
        "width_m": cell.width_m,
        "depth_m": cell.depth_m,
        "depth_sigma_m": cell.depth_sigma_m,
        "area_m2": cell.area_m2,
        "working_material": cell.working_material,
        "working_thickness_m": cell.working_thickness_m,
        "capacity_C": cell.capacity_C,
        "window_V": (cell.window_V[0], cell.window_V[1]),
        "mass_kg": cell.mass_kg,
        "soc_at_start": cell.soc,
        "x_at_start": cell.x0,
        "charge_per_x_C": cell.charge_per_x_C,
        "comments": cell.comments,
    }


def _instrument(experiment: Experiment, connected: Connected) -> dict[str, AttributeValue]:
    identity, ranges = connected.identity, connected.ranges
    return {
        "driver": experiment.potentiostat.driver,
        "model": identity.model,
        "maker": identity.maker,
        "serial": identity.serial,
        "firmware": identity.firmware,
        "identity": identity.raw,
        "nplc": experiment.potentiostat.nplc,
        "block": experiment.potentiostat.block,
        "line_frequency_Hz": experiment.potentiostat.line_frequency_Hz,
        "rest_states": tuple(state.value for state in connected.off_states),
        "range_full_scale_A": tuple(r.full_scale_A for r in ranges),
        "range_gain_ratio": tuple(r.gain_ratio for r in ranges),
        "range_offset_A": tuple(r.offset_A for r in ranges),
        "range_resolution_A": tuple(r.resolution_A for r in ranges),
        "range_settling_s": tuple(r.settling_s for r in ranges),
        "range_group_delay_s": tuple(r.group_delay_s for r in ranges),
        **aperture_attributes(connected.apertures),
        **_thermometer_attributes(connected.thermometer),
    }


def _thermometer_attributes(spec: ThermometerSpec | None) -> dict[str, AttributeValue]:
    """Return what measures the temperature; nothing where nobody asks for it."""
    if spec is None:
        return {}
    return {
        "thermometer": spec.sensor,
        "thermometer_span_K": (spec.low_K, spec.high_K),
        "thermometer_error_K": spec.error_K,
    }


def aperture_attributes(apertures: Apertures) -> dict[str, AttributeValue]:
    """Return where in a reading voltage and current stand, in shares of its ``aperture_s``."""
    return {
        "aperture_order": apertures.order,
        "aperture_order_confirmed": apertures.confirmed,
        "aperture_width_ratio": apertures.width,
        "voltage_aperture_offset_ratio": apertures.voltage_offset,
        "current_aperture_offset_ratio": apertures.current_offset,
    }
