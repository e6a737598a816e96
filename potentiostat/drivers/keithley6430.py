"""Keithley 6430 sub-femtoamp source-measure unit, over SCPI (6430 instruction manual).

The model has no high-impedance off state (p. 17-53), so with a cell attached it is never
switched off: it rests at 0 A with its voltage clamped. Its output-off is a 0 V source
with a limit of 0.5 % of the current range, 5 fA in the smallest one.
"""

from collections.abc import Mapping

from potentiostat.keithley_scpi import COMPLIANCE_BIT, TICK_RATIO, KeithleyScpi
from potentiostat.protocol import SafeState
from potentiostat.records import RangeSpec

__all__ = ["COMPLIANCE_BIT", "RANGES", "TICK_RATIO", "Keithley6430"]

# Data sheet: accuracy within a year, resolution, settling (6430 specifications).
RANGES = tuple(
    RangeSpec(
        full_scale_A=full,
        gain_ratio=gain,
        offset_A=offset,
        resolution_A=step,
        settling_s=settling,
        settles_to=0.1,
    )
    for full, gain, offset, step, settling in (
        (1e-12, 0.010, 7e-15, 1e-17, 2.0),
        (1e-11, 0.005, 7e-15, 1e-16, 2.0),
        (1e-10, 0.0015, 3e-14, 1e-15, 0.05),
        (1e-9, 0.0005, 2e-13, 1e-14, 0.05),
        (1e-8, 0.0005, 2e-12, 1e-13, 0.05),
    )
)


class Keithley6430(KeithleyScpi):
    """A 6430 on one link, used by one thread."""

    model = "6430"
    models: Mapping[str, tuple[RangeSpec, ...]] = {"6430": RANGES}
    ranges = RANGES
    off_states: tuple[SafeState, ...] = (SafeState.S1,)
    input_ohm = 1e16
    off_is_open = False
    _switches_off: tuple[str, ...] = (":SYST:AZER:STAT", ":SENS:AVER", ":SENS:MED")
