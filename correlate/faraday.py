"""Boundary motion and volume against ionic charge: Faraday balances."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from correlate.line import weighted_line


@dataclass(frozen=True, slots=True, kw_only=True)
class FaradayBalance:
    """How far a front moved for the charge that flowed.

    Parameters
    ----------
    slope_m_C, slope_sigma_m_C
        Front displacement per ionic charge.
    expected_m_C
        ``1 / (F * concentration step * area)`` from the cell's geometry; NaN if unknown.
    ratio, ratio_sigma
        Measured over expected.
    ratio_sigma_images, ratio_sigma_charge, ratio_sigma_depth
        What the sigma is made of: places of the front, the scale of the charge, and the depth
        of the area along the beam; the last is NaN, and not counted, where it is unknown.
    n
        Rows used.
    """

    slope_m_C: float
    slope_sigma_m_C: float
    expected_m_C: float
    ratio: float
    ratio_sigma: float
    ratio_sigma_images: float
    ratio_sigma_charge: float
    ratio_sigma_depth: float
    n: int


def faraday_balance(
    charge_C: NDArray[np.float64],
    position_m: NDArray[np.float64],
    position_sigma_m: NDArray[np.float64],
    *,
    charge_scale_sigma: float,
    expected_m_C: float,
    depth_scale_sigma: float = math.nan,
) -> FaradayBalance:
    """Regress a front's position on the ionic charge.

    Parameters
    ----------
    charge_C, position_m, position_sigma_m
        Ionic charge and front at the frames, shape (n,); NaN rows are left out.
    charge_scale_sigma
        Relative standard uncertainty of the charge, common to all rows.
    expected_m_C
        From the geometry.
    depth_scale_sigma
        Relative standard uncertainty of the area's depth along the beam; NaN if unknown.

    Raises
    ------
    ValueError
        Fewer than three valid rows.
    """
    good = np.isfinite(charge_C) & np.isfinite(position_m) & (position_sigma_m > 0)
    if int(good.sum()) < 3:
        raise ValueError(f"{int(good.sum())} frames with charge and front are too few")
    line = weighted_line(charge_C[good], position_m[good], position_sigma_m[good])
    ratio = line.slope / expected_m_C
    images = abs(line.slope_sigma / expected_m_C)
    charge, depth = abs(ratio) * charge_scale_sigma, abs(ratio) * depth_scale_sigma
    return FaradayBalance(
        slope_m_C=line.slope,
        slope_sigma_m_C=math.hypot(line.slope_sigma, line.slope * charge_scale_sigma),
        expected_m_C=expected_m_C,
        ratio=ratio,
        ratio_sigma=math.hypot(images, charge, 0.0 if math.isnan(depth) else depth),
        ratio_sigma_images=images,
        ratio_sigma_charge=charge,
        ratio_sigma_depth=depth,
        n=int(good.sum()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeBalance:
    """Which volume came for the charge that flowed.

    Parameters
    ----------
    slope, slope_sigma
        Volume per ionic charge, m^3/C.
    expected
        Molar volume over ``z F``.
    ratio, ratio_sigma
        Measured over expected.
    n
        Rows used.
    """

    slope: float
    slope_sigma: float
    expected: float
    ratio: float
    ratio_sigma: float
    n: int


def volume_balance(
    charge_C: NDArray[np.float64],
    volume_m3: NDArray[np.float64],
    volume_sigma_m3: NDArray[np.float64],
    *,
    scale_sigma: float,
    expected_m3_C: float,
) -> VolumeBalance:
    """Regress a volume on the ionic charge.

    Parameters
    ----------
    charge_C, volume_m3, volume_sigma_m3
        At the frames, shape (n,); rows with NaN are left out.
    scale_sigma
        Relative standard uncertainty that all rows share, of charge and volume.
    expected_m3_C
        Of the metal.

    Raises
    ------
    ValueError
        Fewer than three rows.
    """
    good = np.isfinite(charge_C) & np.isfinite(volume_m3) & (volume_sigma_m3 > 0)
    if int(good.sum()) < 3:
        raise ValueError(f"{int(good.sum())} frames with charge and volume are too few")
    line = weighted_line(charge_C[good], volume_m3[good], volume_sigma_m3[good])
    sigma = float(np.hypot(line.slope_sigma, line.slope * scale_sigma))
    return VolumeBalance(
        slope=line.slope,
        slope_sigma=sigma,
        expected=expected_m3_C,
        ratio=line.slope / expected_m3_C,
        ratio_sigma=abs(sigma / expected_m3_C),
        n=int(good.sum()),
    )
