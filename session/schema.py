"""The session file in one table: every path, dtype, unit, class and meaning."""

import re
from dataclasses import replace

import numpy as np

from session.spec import Attribute, Column, Group, Shape, real, sigma, stamp, text

SCHEMA_NAME = "lamella-session"
SCHEMA_VERSION = "1.1"  # what it adds: see session/migrations.py
ROOT = "entry"

# What a stamp holds where nothing was written (a crash between two flushes).
NO_STAMP = -(2**63)


ENTRY = Group(
    path="",
    nx_class="NXentry",
    meaning="one experiment",
    columns=(
        text("title", "what was done, in one line", Shape.SCALAR),
        text("start_time", "wall clock at the start, ISO 8601", Shape.SCALAR),
        text("end_time", "wall clock at the end; empty until then", Shape.SCALAR),
        text("exit_reason", "why it ended; 'not finished' until then", Shape.SCALAR),
        text("experiment", "the experiment file's text, verbatim", Shape.SCALAR),
    ),
    attributes=(
        Attribute(
            name="host_start_ns",
            dtype="<i8",
            unit="ns",
            meaning="host clock at start_time",
        ),
        Attribute(name="simulated", dtype="bool", unit="", meaning="true for mock hardware"),
    ),
)

SAMPLES = Group(
    path="samples",
    nx_class="NXdata",
    meaning="the readings of the potentiostat, one row each unless the plan stores fewer",
    signal="voltage",
    axes=("t_ns",),
    columns=(
        stamp("t_ns", "middle of the aperture, host clock", provisional=True),
        sigma("t_sigma_ns", "ns", "1 sigma of t_ns", provisional=True),
        real("device_time_s", "s", "the instrument's own time, raw"),
        stamp("read_start_ns", "host clock before the query was sent, raw"),
        stamp("read_end_ns", "host clock after the reply was in, raw"),
        real("aperture_s", "s", "time over which the reading integrates"),
        real("voltage", "V", "positive electrode against negative"),
        real("current", "A", "positive charges the cell"),
        sigma("voltage_sigma", "V", "random part of voltage, 1 sigma"),
        sigma("current_sigma", "A", "random part of current, 1 sigma"),
        real("setpoint", "", "what was asked for: A or V, by the step's source"),
        real("range", "A", "full scale of the current range"),
        Column(
            name="status",
            dtype="<u4",
            unit="",
            meaning="bit flags, named in the attribute 'flags'; 0 is good",
        ),
        Column(name="step", dtype="<i4", unit="", meaning="step of the plan"),
        Column(name="cycle", dtype="<i4", unit="", meaning="cycle of the plan"),
        real("charge", "C", "charge counted by the instrument since the start"),
        sigma("charge_ionic", "C", "charge that crossed the cell", provisional=True),
        sigma("charge_ionic_sigma", "C", "1 sigma of charge_ionic", provisional=True),
        Column(
            name="averaged",
            dtype="<i4",
            unit="",
            meaning="readings whose mean the row is; 0 and 1 for a single one",
            required=False,
        ),
        Column(
            name="left_out",
            dtype="<i4",
            unit="",
            meaning="readings that were counted but not stored since the row before",
            required=False,
        ),
    ),
)

FRAMES = Group(
    path="frames/<camera>",
    nx_class="NXdata",
    meaning="the frames of one camera, one chunk for each frame, and their stamps",
    signal="data",
    axes=("t_start_ns", "y", "x"),
    columns=(
        Column(
            name="data",
            dtype="pixel",
            unit="counts",
            meaning="pixels; frames beyond the stamps were never written",
            shape=Shape.FRAMES,
        ),
        Column(
            name="y",
            dtype="<f8",
            unit="m",
            meaning="along the layers; in pixels where their size is unknown",
            shape=Shape.HEIGHT,
        ),
        Column(
            name="x",
            dtype="<f8",
            unit="m",
            meaning="across the layers; in pixels where their size is unknown",
            shape=Shape.WIDTH,
        ),
        stamp("t_start_ns", "start of the exposure, host clock", provisional=True),
        stamp("exposure_ns", "length of the exposure"),
        sigma("t_sigma_ns", "ns", "1 sigma of t_start_ns", provisional=True),
        Column(name="index", dtype="<i8", unit="", meaning="the camera's own counter"),
        real("device_time_s", "s", "device_start_ns in seconds"),
        stamp("device_start_ns", "start of the exposure, camera clock, raw"),
        Column(
            name="dropped_before",
            dtype="<i8",
            unit="",
            meaning="frames that the counter says were lost just before",
        ),
        real("dose", "1/m^2", "electrons per area up to the end of the frame"),
        Column(name="blanked", dtype="|u1", unit="", meaning="1 when the beam was off"),
        Column(name="checksum", dtype="<u4", unit="", meaning="CRC-32 of the pixel bytes"),
        Column(
            name="arrival_ns",
            dtype="<i8",
            unit="ns",
            meaning="host clock when the whole frame was here, raw; its least value where unknown",
            required=False,
        ),
        Column(
            name="left_out",
            dtype="<i4",
            unit="",
            meaning="frames that were here just before and are not stored, as was asked for",
            required=False,
        ),
    ),
    attributes=(
        Attribute(name="pixel_size", dtype="<f8", unit="m", meaning="edge of a pixel, or NaN"),
        Attribute(name="model", dtype="str", unit="", meaning="maker and model"),
        Attribute(name="frame_rate", dtype="<f8", unit="Hz", meaning="nominal frame rate"),
        Attribute(
            name="compression",
            dtype="str",
            unit="",
            meaning="of the pixels, and what it takes to read them; none where it is missing",
            required=False,
        ),
        Attribute(
            name="stamp",
            dtype="str",
            unit="",
            meaning="what device_start_ns marks: exposure_start, exposure_end, arrival or unknown",
            required=False,
        ),
        Attribute(
            name="clock",
            dtype="str",
            unit="",
            meaning="which clock it is read from: camera or host",
            required=False,
        ),
        Attribute(
            name="row_time",
            dtype="<f8",
            unit="ns",
            meaning="by which each row is exposed later than the row before; NaN where unknown",
            required=False,
        ),
    ),
)

FRAME_SAMPLES = Group(
    path="frame_samples/<camera>",
    nx_class="NXdata",
    meaning="for each frame the readings over its exposure",
    signal="voltage_mean",
    axes=("t_ns",),
    results=True,
    columns=(
        stamp("t_ns", "middle of the exposure, host clock"),
        real("voltage_mean", "V", "mean over the exposure; NaN without a reading"),
        real("voltage_std", "V", "spread over the exposure"),
        real("current_mean", "A", "mean over the exposure; NaN without a reading"),
        real("current_std", "A", "spread over the exposure"),
        real("count", "", "effective number of readings, weighted by overlap"),
        real("coverage", "", "part of the exposure that readings cover, 0 to 1"),
        real("charge_since_last", "C", "charge since the middle of the last frame"),
    ),
)

EXCHANGES = Group(
    path="clocks/<clock>/exchanges",
    nx_class="NXcollection",
    meaning="raw stamps of each clock exchange: host, device, device, host",
    columns=(
        stamp("t0_ns", "host clock, question sent"),
        stamp("t1_ns", "device clock, question received"),
        stamp("t2_ns", "device clock, answer sent"),
        stamp("t3_ns", "host clock, answer received"),
    ),
)

FIT = Group(
    path="clocks/<clock>/fit",
    nx_class="NXcollection",
    meaning="the device clock on the host clock, one row for each segment",
    results=True,
    columns=(
        stamp("reference_device_ns", "device time of the reference point"),
        stamp("reference_host_ns", "host time of the reference point"),
        real("rate", "", "host nanoseconds for each device nanosecond"),
        real("rate_sigma", "", "1 sigma of rate"),
        real("offset_sigma_ns", "ns", "1 sigma of the host time at the reference"),
        real("covariance_ns", "ns", "covariance of offset and rate"),
        real("bound_ns", "ns", "bound on the error from the round trips"),
        stamp("valid_from_ns", "first host time of the segment"),
        stamp("valid_to_ns", "last host time of the segment"),
        Column(
            name="count",
            dtype="<i8",
            unit="",
            meaning="exchanges behind the segment",
            required=False,
        ),
    ),
)

EVENTS = Group(
    path="events",
    nx_class="NXcollection",
    meaning="steps, limits, gaps, faults, notes, and why it stopped",
    columns=(
        stamp("t_ns", "host clock"),
        text("kind", "what sort of event"),
        text("source", "who says so"),
        text("message", "in words"),
        text("data", "details, JSON"),
    ),
)

EDGES = Group(
    path="edges",
    nx_class="NXcollection",
    meaning="edges of trigger lines, each as the record of one device has seen it",
    columns=(
        stamp("t_ns", "host clock", provisional=True),
        sigma("t_sigma_ns", "ns", "1 sigma of t_ns", provisional=True),
        text("source", "whose record: potentiostat, or a camera"),
        text("line", "which line; empty where there is one"),
        stamp("device_ns", "on that device's clock, raw"),
        sigma("device_sigma_ns", "ns", "1 sigma of device_ns, by how the line was sampled"),
        Column(
            name="polarity", dtype="<i4", unit="", meaning="1 rising, -1 falling, 0 where unknown"
        ),
    ),
)

TEMPERATURE = Group(
    path="temperature",
    nx_class="NXdata",
    meaning="what the thermometer said, about once a second, where one is wired",
    signal="temperature",
    axes=("t_ns",),
    columns=(
        stamp("t_ns", "middle of the exchange, host clock"),
        stamp("read_start_ns", "host clock before the query was sent, raw"),
        stamp("read_end_ns", "host clock after the reply was in, raw"),
        real("temperature", "K", "of the sensor; NaN where it told none that can be believed"),
        sigma("temperature_sigma", "K", "1 sigma, by the errors of sensor and input"),
    ),
)

DRIFT = Group(
    path="drift/<camera>",
    nx_class="NXdata",
    meaning="shift to add to coordinates in a frame to bring them onto the reference",
    signal="dx",
    axes=("t_ns",),
    results=True,
    free_columns=True,
    free_attributes=True,
    columns=(
        stamp("t_ns", "middle of the exposure, host clock"),
        real("dx", "px", "shift along x"),
        real("dy", "px", "shift along y"),
        real("sigma_x", "px", "1 sigma of dx"),
        real("sigma_y", "px", "1 sigma of dy"),
        real("sigma", "px", "1 sigma of the length of the shift"),
        real("quality", "", "correlation over that of a perfect copy of the reference"),
        Column(name="valid", dtype="|u1", unit="", meaning="1 when to be used"),
    ),
)

TRACKS = Group(
    path="tracks/<name>",
    nx_class="NXdata",
    meaning="per frame: what a tracker saw, each quantity with its sigma",
    axes=("t_ns",),
    results=True,
    free_columns=True,
    free_attributes=True,
    columns=(
        stamp("t_ns", "middle of the exposure, host clock"),
        Column(name="valid", dtype="|u1", unit="", meaning="1 when to be used"),
        real("position", "m", "distance from the interface", required=False),
        real("velocity", "m/s", "rate of position", required=False),
        real("tip_distance", "m", "from the tip to the far side", required=False),
        real("area", "m^2", "area of the object", required=False),
    ),
)

_LEDGER_TERMS = {
    "instrument": "what the instrument counted",
    "capacitive": "stray capacitance of holder and leads",
    "leak": "leakage of the holder",
    "beam": "current induced by the beam",
    "dielectric": "dielectric absorption",
    "ionic": "what is left: ions that crossed the cell",
}

LEDGER = Group(
    path="ledger",
    nx_class="NXdata",
    meaning="cumulative charge by cause, positive on charging",
    signal="ionic",
    axes=("t_ns",),
    results=True,
    free_columns=True,
    free_attributes=True,
    columns=(
        stamp("t_ns", "host clock"),
        *(
            column
            for name, meaning in _LEDGER_TERMS.items()
            for column in (
                real(name, "C", meaning),
                sigma(f"{name}_sigma", "C", f"1 sigma of {name}"),
            )
        ),
    ),
)


CALIBRATION = Group(
    path="calibration",
    nx_class="NXcollection",
    meaning="open-holder calibration: results as attributes, raw columns",
    results=True,
    free_columns=True,
    free_attributes=True,
)

CALIBRATION_AFTER = replace(
    CALIBRATION,
    path="calibration_after",
    meaning="the same holder, measured again after the run",
)

_NOISE_RANGES = Group(
    path="calibration/ranges",
    nx_class="NXcollection",
    meaning="zero and noise of each current range that was measured at rest",
    results=True,
    columns=(
        real("range", "A", "full scale"),
        real("offset", "A", "the zero of the range: subtract it from its currents"),
        sigma("offset_sigma", "A", "1 sigma of offset"),
        real("reading", "A", "random part of one reading, from neighbours"),
        real("reading_low", "A", "lower end of its interval (68 %)"),
        real("reading_high", "A", "upper end of its interval (68 %)"),
        real("stated", "A", "random part of one reading, as the driver states it"),
        real("white", "A/sqrt(Hz)", "density of what averages away"),
        real("floor", "A", "flicker part, below which no average comes"),
        real("drift", "A/s", "slope of the record"),
        sigma("drift_sigma", "A/s", "1 sigma of drift"),
        real("best_time", "s", "averaging time of the smallest Allan deviation"),
        real("best", "A", "the smallest Allan deviation"),
        Column(
            name="still_falling",
            dtype="|u1",
            unit="",
            meaning="1 where longer averages would be better still",
        ),
        real("interval", "s", "from reading to reading"),
        Column(name="count", dtype="<i8", unit="", meaning="readings"),
    ),
)

_NOISE_SPECTRUM = Group(
    path="calibration/spectrum/<range>",
    nx_class="NXdata",
    meaning="one-sided noise density of the readings of a range, Welch's method",
    signal="density",
    axes=("frequency",),
    results=True,
    columns=(
        real("frequency", "Hz", "of a line"),
        real("density", "A/sqrt(Hz)", "noise density"),
        real("density_low", "A/sqrt(Hz)", "lower end of its interval (68 %)"),
        real("density_high", "A/sqrt(Hz)", "upper end of its interval (68 %)"),
    ),
)

_NOISE_ALLAN = Group(
    path="calibration/allan/<range>",
    nx_class="NXdata",
    meaning="overlapping Allan deviation of the readings of a range",
    signal="deviation",
    axes=("time",),
    results=True,
    columns=(
        real("time", "s", "over which readings are averaged"),
        real("deviation", "A", "Allan deviation"),
        real("deviation_low", "A", "lower end of its interval (68 %)"),
        real("deviation_high", "A", "upper end of its interval (68 %)"),
    ),
)

CONTACT = Group(
    path="contact",
    nx_class="NXcollection",
    meaning="contact test before the plan: verdict and evidence as attributes, raw columns",
    results=True,
    free_columns=True,
    free_attributes=True,
)


def _number(name: str, unit: str, meaning: str) -> Attribute:
    return Attribute(name=name, dtype="<f8", unit=unit, meaning=meaning)


def _plain(path: str, nx_class: str, meaning: str) -> Group:
    return Group(path=path, nx_class=nx_class, meaning=meaning, free_attributes=True)


GROUPS: tuple[Group, ...] = (
    ENTRY,
    _plain("sample", "NXsample", "the cell: layers, geometry in m, capacity in C"),
    _plain("instrument", "NXinstrument", "who measured"),
    _plain(
        "instrument/<name>",
        "NXsensor",
        "model, identity, serial, firmware, settings, ranges, off-state; cameras are NXdetector",
    ),
    SAMPLES,
    _plain("frames", "NXcollection", "one group for each camera"),
    FRAMES,
    _plain("frame_samples", "NXcollection", "one group for each camera"),
    FRAME_SAMPLES,
    _plain("clocks", "NXcollection", "one group for each clock"),
    _plain("clocks/<clock>", "NXcollection", "one clock other than the host's"),
    EXCHANGES,
    FIT,
    EVENTS,
    EDGES,
    TEMPERATURE,
    _plain("drift", "NXcollection", "one group for each camera"),
    DRIFT,
    _plain("tracks", "NXcollection", "one group for each tracker"),
    TRACKS,
    LEDGER,
    _plain("correlation", "NXcollection", "one group for each test"),
    Group(
        path="correlation/<name>",
        nx_class="NXcollection",
        meaning="what was tested, effect, lag, p by surrogates, data of the figures. Of a rate"
        " against a drive (`front_current` and its like): `first`, `second`, what was taken out"
        " of both (`given`), `slope` and `r` with their intervals (`_low`, `_high`, 95 %),"
        " `best_lag_s` with its own, `p` and its false-discovery rate `q` over `family` tests,"
        " `n`, `n_effective`, `method`, `seed`, `verdict`; columns `lag_s`, `r`, `p_of_lag`,"
        " `surrogate_band`, and the surrogates' largest r, `surrogates_phase` and"
        " `surrogates_iaaft`; without enough data only `reason` and what would be `enough`."
        " `<track>_switching`: the rate around changes of the set-point, with bands;"
        " `<track>_steps`: where the rate's level steps; `faraday` and `volume_<track>`: what"
        " moved against the ionic `charge`, its slope, and the `ratio` to what is expected;"
        " `ratio_sigma_images`, `_charge` and `_depth` are what the sigma of `faraday` is made"
        " of, NaN where an experiment does not say how surely it knows the depth",
        results=True,
        free_columns=True,
        free_attributes=True,
    ),
    Group(
        path="correlation/dose",
        nx_class="NXcollection",
        meaning="per frame `t_ns` (end of the exposure), `dose` since the frame before,"
        " `dose_sigma`, `dose_total`, and `lit`, the share in which the beam was on; `map`, the"
        " dose by place on the specimen (rows, columns), whose first element lies at `map_top`,"
        " `map_left` in pixels of a frame without drift; and the `reason` of what is unknown",
        results=True,
        free_columns=True,
        free_attributes=True,
    ),
    Group(
        path="correlation/edges",
        nx_class="NXcollection",
        meaning="one row: the `difference` that the clocks' fits leave between the same edges in"
        " two records, what explains it, and the clocks' `rate`; `agrees` is NaN where no fit of"
        " the network is compared",
        results=True,
        free_columns=True,
        free_attributes=True,
    ),
    CALIBRATION,
    _NOISE_RANGES,
    _plain("calibration/spectrum", "NXcollection", "one group for each current range"),
    _NOISE_SPECTRUM,
    _plain("calibration/allan", "NXcollection", "one group for each current range"),
    _NOISE_ALLAN,
    CALIBRATION_AFTER,
    CONTACT,
    _plain("queues", "NXcollection", "one group for each bounded queue"),
    _plain("queues/<queue>", "NXcollection", "its counters"),
    Group(
        path="continues",
        nx_class="NXcollection",
        meaning="the session of a run that died, which this one goes on from: where it was, and"
        " what was counted by then. `charge` and `charge_ionic` of `samples` go on from it",
        attributes=(
            Attribute(name="path", dtype="str", unit="", meaning="of its file"),
            Attribute(name="sha256", dtype="str", unit="", meaning="of its file then"),
            Attribute(name="start_time", dtype="str", unit="", meaning="its own, which stays"),
            _number("charge_C", "C", "counted by the instrument, in all sessions before"),
            _number("charge_ionic_C", "C", "that had crossed the cell, by the ledgers before"),
            _number("charge_ionic_sigma_C", "C", "1 sigma of it"),
            _number("counted_ionic_C", "C", "as the live count has it"),
            _number("dose_e_m2", "1/m^2", "dose before; `dose` of frames counts from here"),
            _number("gap_s", "s", "from its last reading to the first new one, at rest"),
            _number("flow_C", "C", "from its last reading until the cell was safe, estimated"),
            _number("flow_sigma_C", "C", "1 sigma of it"),
            _number("leak_C", "C", "taken from the cell by the holder in the gap; NaN: unknown"),
            _number("leak_sigma_C", "C", "1 sigma of it"),
        ),
        free_attributes=True,
    ),
    _plain("provenance", "NXcollection", "where the session comes from"),
    _plain("provenance/versions", "NXcollection", "version of each package"),
    _plain("provenance/host", "NXcollection", "the machine"),
    _plain("provenance/files", "NXcollection", "SHA-256 of each file used"),
)

_PATTERNS = tuple(
    (re.compile(re.sub(r"<\w+>", r"[^/]+", group.path) + r"\Z"), group) for group in GROUPS
)

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\- ]{0,119}\Z")


def find_group(path: str) -> Group | None:
    """Return the table's entry for a path below ``/entry``, None when unknown.

    A literal path goes before a placeholder.
    """
    matches = [group for pattern, group in _PATTERNS if pattern.match(path)]
    return min(matches, key=lambda group: group.path.count("<"), default=None)


def is_name(name: str) -> bool:
    """Say whether a text may stand for a placeholder or name a free column."""
    return _NAME.match(name) is not None


def row_dtype(group: Group) -> np.dtype[np.void]:
    """Return the rows of a group as one structured dtype; strings are objects."""
    return np.dtype([(c.name, "O" if c.dtype == "str" else c.dtype) for c in group.rows])


def unit_of(group: Group, name: str) -> str:
    """Return the unit of a column; a ``_sigma`` has that of its quantity."""
    units = {column.name: column.unit for column in group.columns}
    return units.get(name, units.get(name.removesuffix("_sigma"), ""))
