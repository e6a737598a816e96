"""What PalmSens instruments that speak MethodSCRIPT reach, by the name that they answer.

Lowest ranges after the maker's kit (Nexus) or from memory; potentials after appendix B of the
MethodSCRIPT manual 1.8; numbers of ranges after its tables 34 and 36. Nothing of this is
confirmed on a data sheet or an instrument: see `UNCONFIRMED`.
"""

from dataclasses import dataclass

from potentiostat.readings import ReadingNoise
from potentiostat.records import RangeSpec

UNCONFIRMED = "all figures of ranges, accuracy, settling and input; the numbers of the ranges"

# Not yet confirmed: 0.2 % of the reading and of the range for all, and every settling time.
RANGES = tuple(
    RangeSpec(
        full_scale_A=full,
        gain_ratio=0.002,
        offset_A=0.002 * full,
        resolution_A=1e-4 * full,
        settling_s=settling,
        settles_to=0.08,  # as unconfirmed as the time itself
        source_gain_ratio=0.002,
        source_offset_A=0.002 * full,
    )
    for full, settling in (
        (1e-10, 1.0),
        (1e-9, 0.5),
        (1e-8, 0.1),
        (1e-7, 0.02),
        (1e-6, 0.01),
        (1e-5, 0.01),
    )
)
NOISE = ReadingNoise(voltage_V=5e-5, voltage_step_V=1e-4, current_A=1e-14)
INPUT_OHM = 1e12

_NUMBERS_EMSTAT4 = {1e-9: 0x03, 1e-8: 0x06, 1e-7: 0x09, 1e-6: 0x0C, 1e-5: 0x0F}


@dataclass(frozen=True, slots=True, kw_only=True)
class PalmsensModel:
    """One model.

    Parameters
    ----------
    reach_V
        Lowest and highest potential, to apply and to read.
    range_numbers
        Usable current ranges by full scale, and the maker's number of each where known.
    galvanostat
        True when it can hold a current other than none.
    mains_filter
        True when it can fit its integration to the mains.
    """

    name: str
    reach_V: tuple[float, float]
    range_numbers: dict[float, int | None]
    galvanostat: bool = True
    mains_filter: bool = True


def _emstat4(name: str, reach_V: float, smallest_A: float) -> PalmsensModel:
    return PalmsensModel(
        name=name,
        reach_V=(-reach_V, reach_V),
        range_numbers={
            full: number for full, number in _NUMBERS_EMSTAT4.items() if full >= smallest_A
        },
    )


MODELS = {
    # Its other ranges are no decades, and none of them is for small cells.
    "espico": PalmsensModel(
        name="EmStat Pico",
        reach_V=(-1.25, 2.0),
        range_numbers={1e-7: 0x00},
        galvanostat=False,
        mains_filter=False,
    ),
    "es4_lr": _emstat4("EmStat4 LR", 3.0, 1e-9),
    "es4_hr": _emstat4("EmStat4 HR", 6.0, 1e-7),
    "mes4lr": _emstat4("MultiEmStat4 LR", 3.0, 1e-9),
    "mes4hr": _emstat4("MultiEmStat4 HR", 6.0, 1e-7),
    "nexus1": PalmsensModel(
        name="Nexus",
        reach_V=(-10.0, 10.0),
        range_numbers={spec.full_scale_A: None for spec in RANGES},
    ),
}
