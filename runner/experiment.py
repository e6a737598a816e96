"""An experiment on one page: what a run is asked to do, in SI units, checked."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cameras.errors import CameraError
from cameras.options import ArmedBy, CameraOptions
from cameras.registry import camera_class
from potentiostat.limits import Envelope
from potentiostat.protocol import NO_LINES, TriggerLines
from potentiostat.records import RangeSpec
from potentiostat.technique import CLAMP_RATIO, Step
from runner.blanking_settings import BlankingSettings, blanking_settings, check_blanking
from runner.bus_security import BadCredentials, BusSecurity
from runner.config import MOCK, NODE, CameraTable, ExperimentTable
from runner.config_reading import read_tables
from runner.image_checks import check_image_rules
from runner.image_rules import ImageRule
from runner.keep_checks import check_keep_rules
from runner.keep_rules import Keep
from runner.node_checks import check_node
from runner.plan import choose_range, longest_s
from runner.problems import ExperimentError, Key, Problem, find_line, spelled
from runner.record_settings import RecordSettings, check_record, record_settings
from runner.step_checks import check_steps
from runner.steps import CellTerms, build_steps, image_rules, keeps
from runner.track_options import check_tracks, read_options

__all__ = ["Experiment", "ExperimentError"]

MAX_FILE_BYTES = 1_000_000
QUICK_S = 0.5  # settling of a range
# Charge of a film by volume, from the lithium that its front takes out (mol/m^3, half
# of the lithium of LiCoO2 at 51 500 mol/m^3), times Faraday's constant.
FARADAY_C_MOL = 96_485.33212
# Of the 22 800 mol/m^3 of LiFePO4, 5 % dissolve in its two phases and cross no front.
EXTRACTABLE_MOL_M3 = {"licoo2": 25_750.0, "lco": 25_750.0, "lifepo4": 21_660.0, "lfp": 21_660.0}
SITES_MOL_M3 = {"licoo2": 51_500.0, "lco": 51_500.0, "lifepo4": 22_800.0, "lfp": 22_800.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The cell and its geometry.

    Parameters
    ----------
    layers
        In the order in which the lithium crosses them on charge.
    capacity_C
        Of the working film: as given, or from its volume; NaN where neither is known.
    mass_kg
        Of the working material; NaN where it was not given.
    soc, x0
        State of charge and lithium content when the run begins; NaN where not given.
    comments
        What else there is to say.
    """

    layers: tuple[str, ...]
    width_m: float
    depth_m: float
    working_material: str
    working_thickness_m: float
    window_V: tuple[float, float]
    mass_kg: float = math.nan
    given_capacity_C: float = math.nan
    given_charge_per_x_C: float = math.nan
    soc: float = math.nan
    x0: float = math.nan
    comments: str = ""

    @property
    def area_m2(self) -> float:
        """Area that the current crosses."""
        return self.width_m * self.depth_m

    @property
    def charge_per_m_C(self) -> float:
        """Charge that moves a front by a metre; NaN for an unknown material."""
        step = EXTRACTABLE_MOL_M3.get(self.working_material.lower(), float("nan"))
        return FARADAY_C_MOL * step * self.area_m2

    @property
    def capacity_C(self) -> float:
        """Charge of the whole working film; NaN where neither given nor known."""
        if math.isfinite(self.given_capacity_C):
            return self.given_capacity_C
        return self.charge_per_m_C * self.working_thickness_m

    @property
    def charge_per_x_C(self) -> float:
        """Charge of a whole lithium of each formula unit; NaN where neither given nor known."""
        if math.isfinite(self.given_charge_per_x_C):
            return self.given_charge_per_x_C
        sites = SITES_MOL_M3.get(self.working_material.lower(), math.nan)
        return FARADAY_C_MOL * sites * self.area_m2 * self.working_thickness_m

    @property
    def terms(self) -> CellTerms:
        """What turns C-rates and shares into amperes and coulombs."""
        return CellTerms(
            area_m2=self.area_m2,
            capacity_C=self.capacity_C,
            soc=self.soc,
            charge_per_x_C=self.charge_per_x_C,
            x0=self.x0,
        )


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
class MockSettings:
    """Which simulated world."""

    scenario: str = "lco_lipon_li"
    seed: int = 1
    overrides: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactSettings:
    """A contact test before the plan; its current is chosen by the range where None."""

    current_A: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackSettings:
    """One tracker, the name of its track, and what the tracker is told, in SI units."""

    name: str
    tracker: str
    options: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BusSettings:
    """Where a run is shown over MQTT."""

    host: str
    port: int
    lab: str
    security: BusSecurity = field(default_factory=BusSecurity)
    version: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroscopeSettings:
    """Which microscope, and where its server listens; port 0 for the driver's own."""

    driver: str
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """What a run is asked to do. Load one with `load` or `loads`."""

    title: str
    text: str
    cell: Cell
    potentiostat: PotentiostatSettings
    camera: CameraSettings | None
    mock: MockSettings
    envelope: Envelope
    dose_limit_e_m2: float | None
    tracks: tuple[TrackSettings, ...]
    steps: tuple[Step, ...]
    bus: BusSettings | None
    contact: ContactSettings | None = None
    stop_on_short: bool = False
    microscope: MicroscopeSettings | None = None
    blanking: BlankingSettings | None = None
    record: RecordSettings = field(default_factory=RecordSettings)
    image_rules: tuple[tuple[ImageRule, ...], ...] = ()
    keeps: tuple[Keep, ...] = ()

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read an experiment file.

        Raises
        ------
        ExperimentError
            All that is wrong with it, each with its line.
        """
        file = Path(path)
        try:
            if file.stat().st_size > MAX_FILE_BYTES:
                raise ExperimentError(str(file), [_no_key("is too large to be an experiment file")])
            text = file.read_bytes().decode("utf-8")
        except OSError as error:
            raise ExperimentError(
                str(file), [_no_key(f"cannot be read: {error.strerror}")]
            ) from error
        except UnicodeDecodeError as error:
            raise ExperimentError(
                str(file), [_no_key("is not UTF-8 text; save it as UTF-8")]
            ) from error
        return cls.loads(text, name=str(file), folder=file.parent)

    @classmethod
    def loads(cls, text: str, *, name: str = "experiment", folder: Path | None = None) -> Self:
        """Read the text of an experiment file.

        Parameters
        ----------
        name
            For messages.
        folder
            What relative paths in it start from; the working folder where None.

        Raises
        ------
        ExperimentError
            All that is wrong with it, each with its line.
        """
        # A stored text may have Windows' line ends; the stored one stays as it is.
        tables = read_tables(text.replace("\r\n", "\n"), name)
        cell = _cell(tables)
        problems = [
            Problem(key=spelled(key), line=find_line(text, key), what=what)
            for key, what in _cross_checks(tables, cell)
        ]
        if problems:
            raise ExperimentError(name, problems)
        return cls._build(tables, cell, text, folder or Path())

    @classmethod
    def _build(cls, tables: ExperimentTable, cell: Cell, text: str, folder: Path) -> Self:
        potentiostat, camera, limits = tables.potentiostat, tables.camera, tables.limits
        return cls(
            title=tables.title,
            text=text,
            cell=cell,
            potentiostat=PotentiostatSettings(
                driver=potentiostat.driver,
                resource=potentiostat.resource,
                calibration=None
                if potentiostat.calibration is None
                else folder / potentiostat.calibration,
                nplc=float(potentiostat.nplc),
                line_frequency_Hz=potentiostat.line_frequency,
                range_A=potentiostat.range,
                model=potentiostat.model,
                block=potentiostat.block,
                lines=TriggerLines(
                    exposure_in=potentiostat.exposure_line, mark_out=potentiostat.mark_line
                ),
                thermocouple=potentiostat.thermocouple,
            ),
            camera=None
            if camera is None
            else CameraSettings(
                driver=camera.driver,
                frame_rate_Hz=camera.frame_rate,
                pixel_size_m=camera.pixel_size,
                dose_rate_e_m2_s=camera.dose_rate,
                height=camera.height,
                width=camera.width,
                options=_camera_options(camera, folder),
                node_session=camera.node_session,
            ),
            mock=MockSettings()
            if tables.mock is None
            else MockSettings(
                scenario=tables.mock.scenario,
                seed=tables.mock.seed,
                overrides=dict(tables.mock.overrides),
            ),
            envelope=Envelope(
                voltage_min_V=limits.voltage[0],
                voltage_max_V=limits.voltage[1],
                current_max_A=limits.current,
                charge_max_C=limits.charge,
                voltage_rate_max_V_s=_or(limits.voltage_rate, math.inf),
                current_rate_max_A_s=_or(limits.current_rate, math.inf),
                rate_window_s=limits.rate_window,
                temperature_min_K=limits.temperature[0],
                temperature_max_K=limits.temperature[1],
                charge_ionic_max_C=_or(limits.charge_ionic, math.inf),
                time_max_s=_or(limits.time, math.inf),
            ),
            dose_limit_e_m2=limits.dose,
            tracks=tuple(
                TrackSettings(
                    name=t.name,
                    tracker=t.tracker,
                    options=read_options(t.tracker, t.model_extra or {}).values,
                )
                for t in tables.track
            ),
            steps=build_steps(tables.step, cell.terms, tables.limits),
            bus=_bus(tables, folder),
            stop_on_short=limits.short == "stop",
            contact=None
            if tables.contact is None
            else ContactSettings(current_A=tables.contact.current),
            microscope=None
            if tables.microscope is None
            else MicroscopeSettings(
                driver=tables.microscope.driver,
                host=tables.microscope.host,
                port=tables.microscope.port,
            ),
            blanking=blanking_settings(tables),
            record=record_settings(tables),
            image_rules=image_rules(tables.step),
            keeps=keeps(tables.step, cell.terms),
        )

    @property
    def longest_s(self) -> float:
        """Longest possible duration of the plan, with all of its jumps back."""
        return longest_s(self.steps)

    @property
    def largest_current_A(self) -> float:
        """Largest magnitude of any step's current; the limit where the plan does not tell."""
        largest_A = max(step.largest_current_A for step in self.steps)
        if any(step.has_open_current for step in self.steps):
            return max(largest_A, CLAMP_RATIO * self.envelope.current_max_A)
        return largest_A

    def range_A(self, ranges: Sequence[RangeSpec]) -> float:
        """Return the one current range of the run: the smallest that holds every step.

        A plan that only rests has the smallest range that is quick: those below it need
        minutes to charge a holder, and tell nothing more of an open circuit.

        Raises
        ------
        ValueError
            The instrument has none, or not the one that the experiment names.
        """
        named_A = self.potentiostat.range_A
        if named_A is not None:
            known = [r.full_scale_A for r in ranges if math.isclose(r.full_scale_A, named_A)]
            if not known:
                there = ", ".join(f"{r.full_scale_A:g}" for r in ranges)
                raise ValueError(f"there is no range of {named_A:g} A; there is {there}")
            if not next(r for r in ranges if r.full_scale_A == known[0]).sources:
                there = ", ".join(f"{r.full_scale_A:g}" for r in ranges if r.sources)
                raise ValueError(
                    f"the range of {named_A:g} A only measures, and a plan rests at a sourced "
                    f"0 A; there is {there}"
                )
            return known[0]
        if self.largest_current_A == 0:
            sourcing = [r for r in ranges if r.sources]
            quick = (r for r in sourcing if r.settling_s < QUICK_S)
            return next(quick, sourcing[0]).full_scale_A
        return choose_range(self.largest_current_A, ranges).full_scale_A


def _no_key(what: str) -> Problem:
    return Problem(key="file", line=0, what=what)


def _cell(tables: ExperimentTable) -> Cell:
    cell = tables.cell
    window = cell.window if len(cell.window) == 2 else [0.0, 0.0]
    return Cell(
        layers=tuple(layer.strip() for layer in cell.stack.split("|")),
        width_m=cell.width,
        depth_m=cell.depth,
        working_material=cell.working.material,
        working_thickness_m=cell.working.thickness,
        window_V=(window[0], window[1]),
        mass_kg=_or(cell.mass, math.nan),
        given_capacity_C=_or(cell.capacity, math.nan),
        given_charge_per_x_C=_or(cell.charge_per_x, math.nan),
        soc=_or(cell.soc, math.nan),
        x0=_or(cell.x0, math.nan),
        comments=cell.comments,
    )


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _bus(tables: ExperimentTable, folder: Path) -> BusSettings | None:
    bus = tables.bus
    if bus is None:
        return None
    host, _, port = bus.broker.rpartition(":")

    def path(text: str | None) -> Path | None:
        return None if text is None else folder / text

    security = BusSecurity(
        username=bus.username,
        password_file=path(bus.password_file),
        ca_file=path(bus.ca_file),
        cert_file=path(bus.cert_file),
        key_file=path(bus.key_file),
        command_key_file=path(bus.command_key_file),
    )
    return BusSettings(
        host=host, port=int(port), lab=bus.lab, security=security, version=bus.version
    )


# --- what only several keys together can be wrong in --------------------------------------

_Found = list[tuple[Key, str]]


def _cross_checks(tables: ExperimentTable, cell: Cell) -> _Found:
    return [
        *_check_cell(tables, cell),
        *_check_limits(tables, cell),
        *_check_equipment(tables),
        *_check_contact(tables),
        *check_tracks(tables.track),
        *check_blanking(tables),
        *check_record(tables),
        *check_steps(tables, cell.terms),
        *check_image_rules(tables),
        *check_keep_rules(tables, cell.terms),
    ]


def _check_cell(tables: ExperimentTable, cell: Cell) -> _Found:
    found: _Found = []
    for name in ("width", "depth"):
        if getattr(tables.cell, name) <= 0:
            found.append((("cell", name), "must be more than nothing, such as 5 um"))
    for name, example in (("mass", "5 pg"), ("capacity", "12 nC"), ("charge_per_x", "25 nC")):
        value = getattr(tables.cell, name)
        if value is not None and value <= 0:
            found.append((("cell", name), f"must be more than nothing, such as {example}"))
    for name in ("soc", "x0"):
        value = getattr(tables.cell, name)
        if value is not None and not 0 <= value <= 1:
            found.append((("cell", name), f"{value:g} lies outside 0 to 1"))
    if cell.working_thickness_m <= 0:
        found.append((("cell", "working"), "thickness must be more than nothing"))
    if cell.working_material not in cell.layers:
        found.append(
            (
                ("cell", "working"),
                f"{cell.working_material!r} is no layer of the stack; "
                f"it has {', '.join(cell.layers)}",
            )
        )
    return found


def _check_pair(key: Key, pair: Sequence[float]) -> _Found:
    if len(pair) != 2:
        return [(key, 'needs a low and a high value, such as ["2.8 V", "4.2 V"]')]
    if not pair[0] < pair[1]:
        return [(key, f"runs from {pair[0]:g} to {pair[1]:g} V; write the lower first")]
    return []


def _check_limits(tables: ExperimentTable, cell: Cell) -> _Found:
    limits = tables.limits
    found = _check_pair(("cell", "window"), tables.cell.window)
    found += _check_pair(("limits", "voltage"), limits.voltage)
    if found:
        return found
    low, high = limits.voltage
    if low > cell.window_V[0] or high < cell.window_V[1]:
        found.append(
            (
                ("limits", "voltage"),
                f"{low:g} to {high:g} V lies inside the cell's window "
                f"{cell.window_V[0]:g} to {cell.window_V[1]:g} V; limits stand outside it",
            )
        )
    if low <= 0:
        found.append(
            (
                ("limits", "voltage"),
                f"the lower limit {low:g} V would allow 0 V on a cell",
            )
        )
    coldest_K, hottest_K = limits.temperature
    if not coldest_K < hottest_K:
        what = f"runs from {coldest_K:g} to {hottest_K:g} K; write the lower first"
        found.append((("limits", "temperature"), what))
    optional = (
        ("voltage_rate", "10 mV/s"),
        ("current_rate", "10 pA/s"),
        ("rate_window", "2 s"),
        ("charge_ionic", "8 nC"),
        ("time", "2 h"),
    )
    for name, example in (("current", "100 pA"), ("charge", "8 nC"), ("dose", None), *optional):
        value = getattr(limits, name)
        if value is not None and value <= 0:
            hint = f", such as {example}" if example else ""
            found.append((("limits", name), f"must be more than nothing{hint}"))
    return found


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


def _check_contact(tables: ExperimentTable) -> _Found:
    current_A = None if tables.contact is None else tables.contact.current
    if current_A is None or 0 < current_A <= tables.limits.current:
        return []
    return [(("contact", "current"), "must be more than nothing, and within the limits")]


def _check_equipment(tables: ExperimentTable) -> _Found:
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
    return [*found, *_check_bus(tables)]


def _check_bus(tables: ExperimentTable) -> _Found:
    if tables.bus is None:
        return []
    if not tables.bus.broker.rpartition(":")[2].isdigit():
        return [(("bus", "broker"), "is a host and a port, such as 127.0.0.1:1883")]
    bus = _bus(tables, Path())
    try:
        if bus is not None:
            bus.security.refuse_unfit(bus.host)
    except BadCredentials as error:
        return [(("bus",), str(error))]
    return []
