"""Keithley 2400 source-measure unit, over SCPI (2400 user's manual).

For learning and for larger cells: its smallest range is 1 uA and its voltmeter may draw
hundreds of picoamperes. It can open its output relay (HIMP, p. 13-9), so it ends there.
"""

from collections.abc import Mapping

from potentiostat.keithley_scpi import KeithleyScpi
from potentiostat.protocol import SafeState
from potentiostat.readings import ReadingNoise
from potentiostat.records import RangeSpec

# Not yet confirmed on a data sheet of ours: accuracy and source zero of these ranges.
RANGES = tuple(
    RangeSpec(
        full_scale_A=full,
        gain_ratio=gain,
        offset_A=offset,
        resolution_A=step,
        settling_s=0.005,
        source_gain_ratio=source_gain,
        source_offset_A=source_offset,
    )
    for full, gain, offset, step, source_gain, source_offset in (
        (1e-6, 0.00029, 3e-10, 1e-11, 0.00035, 6e-10),
        (1e-5, 0.00027, 7e-10, 1e-10, 0.00033, 2e-9),
        (1e-4, 0.00025, 6e-9, 1e-9, 0.00031, 2e-8),
        (1e-3, 0.00027, 6e-8, 1e-8, 0.00034, 2e-7),
    )
)


class Keithley2400(KeithleyScpi):
    """A 2400 on one link, used by one thread."""

    model = "2400"
    models: Mapping[str, tuple[RangeSpec, ...]] = {"2400": RANGES}
    ranges = RANGES
    off_states: tuple[SafeState, ...] = (SafeState.S1, SafeState.S2)
    input_ohm = 1e10
    unconfirmed = "accuracy and source zero of every range, input resistance"
    noise = ReadingNoise(voltage_V=5e-5, voltage_step_V=1e-4, current_A=5e-11)
    off_is_open = True

    @property
    def _first_range(self) -> int:
        return 0
