"""Volume of what is seen to grow against the charge that crossed the electrolyte."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from correlate.faraday import volume_balance
from correlate.ledger import Ledger
from session.reader import Session
from session.records import AttributeValue

PREFIX = "volume_"
UNITS = {"charge": "C", "volume": "m^3", "volume_sigma": "m^3"}

Balance = tuple[dict[str, NDArray[np.generic]], dict[str, AttributeValue]]
"""Points that took part, as columns, and what was found."""


def volume_balances(
    session: Session,
    columns: Mapping[str, NDArray[np.generic]],
    ledger: Ledger,
) -> dict[str, Balance]:
    """Return the balance of each track that tells a volume and of which metal it is.

    Nothing for one of fewer than three valid frames, and none at all where the ionic charge is
    not known. Frames of an object that has left the field are not valid, and take no part.
    """
    found: dict[str, Balance] = {}
    ionic = ledger.columns["ionic"]
    if not np.all(np.isfinite(ionic)):
        return found
    seconds = (ledger.t_ns - ledger.t_ns[0]).astype(np.float64) / 1e9
    largest = int(np.argmax(np.abs(ionic)))
    charge_scale = float(ledger.columns["ionic_sigma"][largest]) / max(abs(ionic[largest]), 1e-30)
    for name in session.tracks:
        track = session.table(f"tracks/{name}")
        expected = float(str(track.attributes.get("volume_per_charge", math.nan)))
        if "volume" not in track.columns or not math.isfinite(expected):
            continue
        at_s = (np.asarray(track["t_ns"], np.int64) - ledger.t_ns[0]).astype(np.float64) / 1e9
        valid = np.asarray(track["valid"]) == 1
        charge = np.where(valid, np.interp(at_s, seconds, ionic), math.nan)
        volume = np.asarray(track["volume"], np.float64)
        sigma = np.asarray(track["volume_sigma"], np.float64)
        width_scale = float(str(track.attributes.get("volume_scale_sigma", math.nan)))
        try:
            balance = volume_balance(
                charge,
                volume,
                sigma,
                scale_sigma=math.hypot(charge_scale, width_scale),
                expected_m3_C=expected,
            )
        except ValueError:
            continue
        used = np.isfinite(charge) & np.isfinite(volume) & (sigma > 0)
        points = {"charge": charge, "volume": volume, "volume_sigma": sigma}
        found[name] = (
            {column: values[used] for column, values in points.items()},
            {
                "slope_m3_C": balance.slope,
                "slope_sigma_m3_C": balance.slope_sigma,
                "expected_m3_C": balance.expected,
                "ratio": balance.ratio,
                "ratio_sigma": balance.ratio_sigma,
                "n": balance.n,
            },
        )
    return found
