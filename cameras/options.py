"""How a camera is reached and what is asked of it: the keys of an experiment's ``[camera]``."""

import math
from dataclasses import dataclass
from enum import StrEnum


class ArmedBy(StrEnum):
    """Who makes the camera expose."""

    LAMELLA = "lamella"
    MICROSCOPE = "microscope"  # we listen, and command nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraOptions:
    """What an experiment may say to a camera; each driver takes what it needs.

    Parameters
    ----------
    host, port
        Of a server, a REST interface or a broker; 0 for the driver's own port.
    control_port, data_port
        Where a detector has two; 0 for the driver's own.
    path, pattern
        Folder to watch, and the names of the files in it.
    node
        Name of a camera node.
    armed_by
        Who begins and ends the exposures.
    frame_rate_Hz, exposure_s, pixel_size_m
        What is asked of a camera that can be set, and taken for true of one that does
        not say; NaN where unknown.
    """

    host: str = "127.0.0.1"
    port: int = 0
    control_port: int = 0
    data_port: int = 0
    path: str = ""
    pattern: str = ""
    node: str = ""
    armed_by: ArmedBy = ArmedBy.LAMELLA
    frame_rate_Hz: float = math.nan
    exposure_s: float = math.nan
    pixel_size_m: float = math.nan
