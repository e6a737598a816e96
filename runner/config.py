"""The experiment file as it is written: its tables and keys.

The ``config`` modules are the door to pydantic.
"""

from typing import Literal

from pydantic import ConfigDict, Field

from potentiostat.limits import RATE_WINDOW_S
from runner.config_fields import (
    NO_LIMIT,
    Charge,
    Current,
    CurrentRate,
    Dose,
    DoseRate,
    Fraction,
    FrameRate,
    Length,
    Mass,
    ScanRate,
    Table,
    TemperatureSpan,
    Time,
    Voltage,
)
from runner.config_steps import StepTable

MOCK, NODE = "mock", "node"  # drivers that are none of a maker


class WorkingTable(Table):
    """``working = { material, thickness }``.

    Parameters
    ----------
    material
        Of the working electrode; capacity and C-rate follow for LiCoO2 and LiFePO4.
    thickness
        Of its film, along the current.
    """

    material: str
    thickness: Length


class CellTable(Table):
    """``[cell]``.

    Parameters
    ----------
    stack
        The layers, in the order in which the lithium crosses them on charge.
    width
        Of the area that the current crosses.
    depth
        Of that area, along the beam.
    depth_sigma
        Its standard uncertainty, which is that of the charge by which a front moves, too.
    working
        The electrode that is looked at.
    window
        Lowest and highest voltage that the cell bears.
    mass
        Of the working material.
    capacity
        Of the working film; from its volume where left out, and the material is known.
    soc
        State of charge when the run begins; rules on `SoC` need it.
    x0
        Lithium content when the run begins; rules on `x` need it.
    charge_per_x
        Charge of a whole lithium of each formula unit; from the volume where left out.
    comments
        What else there is to say.
    """

    stack: str
    width: Length
    depth: Length
    depth_sigma: Length | None = None
    working: WorkingTable
    window: list[Voltage]
    mass: Mass | None = None
    capacity: Charge | None = None
    soc: Fraction | None = None
    x0: Fraction | None = None
    charge_per_x: Charge | None = None
    comments: str = ""


class PotentiostatTable(Table):
    """``[potentiostat]``.

    Parameters
    ----------
    driver
        As `lamella instruments` names it.
    resource
        VISA resource name, or `mock`.
    model
        Model within the driver's family, where it matters.
    calibration
        File of `lamella calibrate`.
    range
        Current range to stay in; chosen by the plan where left out.
    nplc
        Time over which a reading integrates, in cycles of the mains.
    line_frequency
        Of the mains: 50 or 60 Hz.
    block
        Readings that are fetched at once.
    exposure_line
        Trigger line with the camera's exposures, whose edges begin the blocks.
    mark_line
        Trigger line that gives a pulse at each change of the set-point.
    thermocouple
        A thermocouple is wired to the instrument and to the holder.
    """

    driver: str
    resource: str
    model: str | None = None
    calibration: str | None = None
    range: Current | None = None
    nplc: float | int = 1.0
    line_frequency: FrameRate = 50.0
    block: int = 1
    exposure_line: int | None = None
    mark_line: int | None = None
    thermocouple: bool = False


class CameraTable(Table):
    """``[camera]``.

    Parameters
    ----------
    driver
        `merlin`, `dectris`, `folder`, `stream`, `node` or `mock`.
    frame_rate
        Asked of a camera that can be set, and taken for true of one that does not say.
    pixel_size
        Edge of a pixel in the specimen.
    dose_rate
        Of the beam on the specimen.
    height, width
        Pixels of a simulated camera.
    host
        Of a server or an interface.
    port
        Of it; 0 for the driver's own.
    control_port, data_port
        Where a detector has two; 0 for the driver's own.
    path
        Folder to watch.
    pattern
        Names of the files in it, such as `*.tif`.
    node
        Name of a camera node.
    node_session
        What that node calls its session in its topics.
    armed_by
        Who begins and ends the exposures.
    exposure
        Of a frame, where it is shorter than the time between frames.
    """

    driver: str
    frame_rate: FrameRate
    pixel_size: Length
    dose_rate: DoseRate
    height: int = 160
    width: int = 400
    host: str = "127.0.0.1"
    port: int = 0
    control_port: int = 0
    data_port: int = 0
    path: str = ""
    pattern: str = ""
    node: str = ""
    node_session: str = "cameras"
    armed_by: Literal["lamella", "microscope"] = "lamella"
    exposure: Time | None = None


class MockTable(Table):
    """``[mock]``.

    Parameters
    ----------
    scenario
        Which simulated specimen stands behind the instruments.
    seed
        Of its noise: the same seed gives the same run.
    overrides
        Parameters of the scenario that are to be others.
    """

    scenario: str = "lco_lipon_li"
    seed: int = 1
    overrides: dict[str, float | int] = Field(default_factory=dict)


class LimitsTable(Table):
    """``[limits]``.

    Parameters
    ----------
    voltage
        Lowest and highest voltage.
    current
        Largest magnitude of the current.
    charge
        Largest magnitude of the instrument's charge since the run began.
    dose
        Of the beam since the run began.
    voltage_rate, current_rate
        Largest slope over `rate_window`.
    rate_window
        Time over which those slopes are taken.
    temperature
        Highest temperature, or a list of the lowest and the highest.
    short
        End the run at a soft short.
    charge_ionic
        Largest magnitude of the cell's own charge; needs a calibrated holder.
    time
        From the first step on, rests and pauses included.
    """

    voltage: list[Voltage]
    current: Current
    charge: Charge
    dose: Dose | None = None
    voltage_rate: ScanRate | None = None
    current_rate: CurrentRate | None = None
    rate_window: Time = RATE_WINDOW_S
    temperature: TemperatureSpan = NO_LIMIT
    short: Literal["stop"] | None = None
    charge_ionic: Charge | None = None
    time: Time | None = None


class ContactTable(Table):
    """``[contact]``: test the contact before the plan.

    Parameters
    ----------
    current
        Of the test; from the zero of the source where left out.
    """

    current: Current | None = None


class TrackTable(Table):
    """``[[track]]``; what else it holds is the tracker's own, see `runner.track_options`.

    Parameters
    ----------
    name
        Of the track, as rules and the session know it.
    tracker
        What follows it.
    """

    model_config = ConfigDict(extra="allow")

    name: str
    tracker: str


class MicroscopeTable(Table):
    """``[microscope]``: what is beside the camera.

    Parameters
    ----------
    driver
        `temscript` or `mock`.
    host
        Where its server runs.
    port
        Where it listens; 0 for the driver's own.
    """

    driver: str
    host: str = "127.0.0.1"
    port: int = 0


class BlankerTable(Table):
    """``[blanker]``: blank the beam in a code that camera and meter can read.

    Parameters
    ----------
    code
        Order of the code, from 5 to 10, or chosen by what is measured.
    chip
        Shortest time for which the beam stays as it is; chosen where left out.
    every
        From code to code; a single one where left out.
    after
        From the beginning of the run to the first code.
    repeats
        How often each code is played in a row.
    response
        About the time constant of the beam's current.
    rise
        About that of the blanker.
    """

    code: Literal["auto"] | int = "auto"
    chip: Time | None = None
    every: Time | None = None
    after: Time = 5.0
    repeats: int = 1
    response: Time = 0.0
    rise: Time = 0.0


class RecordTable(Table):
    """``[record]``: which frames are stored, and how.

    Parameters
    ----------
    compression
        How frames are packed, without loss.
    before, after
        How long around an event all frames are stored; all of them where left out.
    idle_rate
        Of the frames that are stored elsewhere; 0 Hz for none.
    on
        Kinds of events, and rules on `V`, `I` and `|I|`.
    """

    compression: Literal["none", "auto", "deflate", "bitshuffle-lz4"] = "none"
    before: Time | None = None
    after: Time | None = None
    idle_rate: FrameRate | None = None
    on: list[str] = Field(default_factory=list)


class BusTable(Table):
    """``[bus]``.

    Parameters
    ----------
    broker
        Host and port, such as `127.0.0.1:1883`.
    lab
        First part of the topics.
    version
        Of MQTT.
    username
        Who we are to the broker.
    password_file
        File with the password alone.
    ca_file
        Certificate of who signed the broker's; switches TLS on.
    cert_file, key_file
        Our own certificate and its key.
    command_key_file
        Key that signs commands; without it none are taken.
    """

    broker: str
    lab: str = "lab"
    version: Literal[3, 5] = 5
    username: str = ""
    password_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    command_key_file: str | None = None


class ExperimentTable(Table):
    """The whole file.

    Parameters
    ----------
    title
        What is done, in one line.
    cell
        The cell and its geometry.
    potentiostat
        The instrument.
    camera
        The camera; none where left out.
    mock
        Only read where something else is `mock`.
    limits
        What is never exceeded, in any step.
    contact
        Test the contact before the plan.
    track
        Trackers that look at the frames.
    step
        The plan.
    bus
        Show the run over MQTT.
    microscope
        What is beside the camera.
    blanker
        Blank the beam in a code.
    record
        Which frames are stored, and how.
    """

    title: str
    cell: CellTable
    potentiostat: PotentiostatTable
    camera: CameraTable | None = None
    mock: MockTable | None = None
    limits: LimitsTable
    contact: ContactTable | None = None
    track: list[TrackTable] = Field(default_factory=list)
    step: list[StepTable]
    bus: BusTable | None = None
    microscope: MicroscopeTable | None = None
    blanker: BlankerTable | None = None
    record: RecordTable | None = None
