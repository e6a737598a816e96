"""The columns of the Battery Data Format, from the readings of a session.

Labels and meanings are those of the table in the README of
battery-data-alliance/battery-data-format, sections "Required", "Recommended" and "Optional
quantities". Its current is positive on charge, as a session's is: no sign is changed.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from session.errors import SessionRefused
from session.export_tables import export_table, start_utc_ns
from session.reader import Session

if TYPE_CHECKING:
    import pandas as pd

LABELS = {
    "test_time_second": "Test Time / s",
    "voltage_volt": "Voltage / V",
    "current_ampere": "Current / A",
    "unix_time_second": "Unix Time / s",
    "cycle_count": "Cycle Count / 1",
    "step_count": "Step Count / 1",
    "net_capacity_ah": "Net Capacity / Ah",
}
_COULOMB_PER_AH = 3600.0


def bdf_frame(session: Session) -> "pd.DataFrame":
    """Return the readings under the format's preferred labels, in its units.

    The net capacity is the charge that the instrument counted, and left out where it
    counted none. Steps are counted as they were played, since a plan may return to one.

    Raises
    ------
    SessionRefused
        The session has no readings.
    """
    import pandas as pd  # noqa: PLC0415 - half a second that few calls need

    table = export_table(session, "samples")
    if not len(table):
        raise SessionRefused(
            f"{session.path} has no readings, which is all that the Battery Data Format holds"
        )
    values = {column.name: column.data for column in table.columns}
    found: dict[str, NDArray[np.generic]] = {
        "test_time_second": values["session_time_s"],
        "voltage_volt": values["voltage"],
        "current_ampere": values["current"],
    }
    start = start_utc_ns(session)
    if start is not None:
        # Nanoseconds since 1970 are beyond a double, which is good to 0.3 us here.
        moments = values["utc"]
        seconds = moments.astype(np.int64) / 1e9
        found["unix_time_second"] = np.where(np.isnat(moments), np.nan, seconds)
    found["cycle_count"] = values["cycle"]
    found["step_count"] = _steps_played(values["step"], values["cycle"])
    if np.any(np.isfinite(values["charge"])):
        found["net_capacity_ah"] = values["charge"] / _COULOMB_PER_AH
    return pd.DataFrame({LABELS[name]: column for name, column in found.items()})


def _steps_played(step: NDArray[np.int32], cycle: NDArray[np.int32]) -> NDArray[np.int64]:
    changed = (np.diff(step) != 0) | (np.diff(cycle) != 0)
    return np.concatenate([[0], np.cumsum(changed)]) if step.size else np.zeros(0, np.int64)
