"""What a frame tells of something that grows, and why it tells nothing."""

import math
from dataclasses import dataclass

from correlate.deposit import AreaReading
from correlate.drift import Shift
from correlate.shaft import Axis

NOT_FOUND = "no object stands out in the gap"
UNSEEN = "no step stands out where the end should be"
GOES_ON = "what lies before the end stands out as well"
ODD = "what is seen is no straight, round end"
UNSETTLED = "the fit did not settle"
JUMPED = "a jump beyond what the end can move"
LEFT = "the end has left the field: length and area are lower bounds"
TOUCHES = "the end touches the other electrode"
NO_LEVEL = "too little of the background is in the field"
BEHIND_ONLY = "nothing touches the electrode any more"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthReading:
    """What one frame tells, in px; the reason is empty where the foremost end was found.

    Parameters
    ----------
    along_px, along_sigma_px
        The way to the foremost end; the sigma is that of this frame and its
        drift, without what all frames share.
    length_px, length_sigma_px
        Of the way from the edge to that end.
    x_px, y_px
        Of that end, in reference coordinates.
    distance_px, distance_sigma_px
        From that end to the target's edge.
    axis, number
        Of that end; other ends have other numbers.
    area
        None where it was not measured.
    branches
        Free ends that are seen.
    censored
        The object has left the field.
    cut
        A border of the field cuts the object, beside the electrodes: it is larger than its area.
    """

    shift: Shift
    along_px: float = math.nan
    along_sigma_px: float = math.nan
    length_px: float = math.nan
    length_sigma_px: float = math.nan
    x_px: float = math.nan
    y_px: float = math.nan
    end_sigma_px: float = math.nan
    distance_px: float = math.nan
    distance_sigma_px: float = math.nan
    axis: Axis | None = None
    number: int = 0
    area: AreaReading | None = None
    branches: int = 0
    censored: bool = False
    cut: bool = False
    significance: float = math.nan
    reason: str = ""
