"""Raw numbers to rows: one reading is made in another way than many, and must be the same."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potentiostat.protocol import Setpoint
from potentiostat.readings import Raw, ReadingNoise, SingleReadings, sample_rows
from potentiostat.records import RangeSpec, Status, rows_of

SPEC = RangeSpec(
    full_scale_A=1e-10, gain_ratio=0.0015, offset_A=3e-14, resolution_A=1e-15, settling_s=0.05
)
HELD = {
    "nothing": None,
    "current": Setpoint(mode="current", level=2e-11, clamp=4.3, range_A=1e-10),
    "voltage": Setpoint(mode="voltage", level=3.9, clamp=9e-11, range_A=1e-10),
}
anything = st.one_of(st.floats(-5, 5), st.sampled_from([math.nan, math.inf, -math.inf]))


@given(
    start_ns=st.integers(0, 2 * 10**9),
    voltage_V=anything,
    current_A=anything.map(lambda x: x * 1e-11),
    compliance=st.booleans(),
    held=st.sampled_from(sorted(HELD)),
    own_A=st.sampled_from([0.0, 1e-14]),
)
def test_one_reading_is_made_like_many(start_ns, voltage_V, current_A, compliance, held, own_A):
    raw = Raw(
        read_start_ns=np.array([start_ns]),
        read_end_ns=np.array([start_ns + 5]),
        voltage_V=np.array([voltage_V]),
        current_A=np.array([current_A]),
        device_time_s=np.array([1.25]),
        compliance=np.array([compliance]),
    )
    conditions = {
        "setpoint": HELD[held],
        "spec": SPEC,
        "noise": ReadingNoise(voltage_V=5e-5, voltage_step_V=1e-4, current_A=own_A),
        "window_s": 0.02,
        "aperture_s": 0.04,
        "settled_ns": 10**9,
    }
    reading = SingleReadings(**conditions).reading(
        start_ns, start_ns + 5, voltage_V, current_A, 1.25, compliance=compliance
    )
    row, rows = rows_of([reading]), sample_rows(raw, **conditions)
    assert row.dtype == rows.dtype
    for name in row.dtype.names:
        assert row[name][0] == pytest.approx(rows[name][0], rel=1e-12, nan_ok=True), name


def test_what_is_no_number_says_so():
    for voltage_V, current_A, flag in (
        (math.nan, 1e-11, Status.INVALID),
        (3.9, math.nan, Status.INVALID),
        (math.inf, math.nan, Status.OVERFLOW),
        (3.9, -math.inf, Status.OVERFLOW),
        (3.9, 1e-11, Status(0)),
    ):
        reading = SingleReadings(
            setpoint=HELD["current"],
            spec=SPEC,
            noise=ReadingNoise(voltage_V=5e-5, voltage_step_V=1e-4),
            window_s=0.02,
            aperture_s=0.04,
            settled_ns=0,
        ).reading(0, 1, voltage_V, current_A, 0.0, compliance=False)
        assert Status(reading.status) == flag
        assert math.isfinite(reading.current_sigma_A)
