"""Open-holder calibration: plays the staircase on an empty holder and fits it."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from potentiostat.calibration import HolderCalibration, fit_holder, staircase
from potentiostat.limits import Condition
from potentiostat.protocol import Setpoint
from runner.cell import GuardedCell, InstrumentUnavailable
from runner.experiment import Experiment
from runner.format import with_sigma
from runner.lab import MOCK, Lab, open_lab
from runner.messages import (
    Block,
    Finished,
    GuardianSettings,
    StartStep,
    StepEnded,
    Tripped,
)
from runner.outputs import refuse_existing
from session.calibration_file import read_calibration, write_calibration
