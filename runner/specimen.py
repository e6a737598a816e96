"""The cell as an experiment file describes it: layers, geometry, and the charge that they hold."""

import math
from dataclasses import dataclass

from runner.config import ExperimentTable
from runner.problems import Key
from runner.steps import CellTerms

# Charge of a film by volume, from the lithium that its front takes out (mol/m^3, half
# of the lithium of LiCoO2 at 51 500 mol/m^3), times Faraday's constant.
FARADAY_C_MOL = 96_485.33212
# Of the 22 800 mol/m^3 of LiFePO4, 5 % dissolve in its two phases and cross no front.
EXTRACTABLE_MOL_M3 = {"licoo2": 25_750.0, "lco": 25_750.0, "lifepo4": 21_660.0, "lfp": 21_660.0}
SITES_MOL_M3 = {"licoo2": 51_500.0, "lco": 51_500.0, "lifepo4": 22_800.0, "lfp": 22_800.0}

_Found = list[tuple[Key, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The cell and its geometry.

    Parameters
    ----------
    layers
        In the order in which the lithium crosses them on charge.
    capacity_C
        Of the working film: as given, or from its volume; NaN where neither is known.
    mass_kg
        Of the working material; NaN where it was not given.
    depth_sigma_m
        Standard uncertainty of the depth; NaN where it was not given.
    soc, x0
        State of charge and lithium content when the run begins; NaN where not given.
    comments
        What else there is to say.
    """

    layers: tuple[str, ...]
    width_m: float
    depth_m: float
    working_material: str
    working_thickness_m: float
    window_V: tuple[float, float]
    depth_sigma_m: float = math.nan
    mass_kg: float = math.nan
    given_capacity_C: float = math.nan
    given_charge_per_x_C: float = math.nan
    soc: float = math.nan
    x0: float = math.nan
    comments: str = ""

    @property
    def area_m2(self) -> float:
        """Area that the current crosses."""
        return self.width_m * self.depth_m

    @property
    def charge_per_m_C(self) -> float:
        """Charge that moves a front by a metre; NaN for an unknown material."""
        step = EXTRACTABLE_MOL_M3.get(self.working_material.lower(), float("nan"))
        return FARADAY_C_MOL * step * self.area_m2

    @property
    def capacity_C(self) -> float:
        """Charge of the whole working film; NaN where neither given nor known."""
        if math.isfinite(self.given_capacity_C):
            return self.given_capacity_C
        return self.charge_per_m_C * self.working_thickness_m

    @property
    def charge_per_x_C(self) -> float:
        """Charge of a whole lithium of each formula unit; NaN where neither given nor known."""
        if math.isfinite(self.given_charge_per_x_C):
            return self.given_charge_per_x_C
        sites = SITES_MOL_M3.get(self.working_material.lower(), math.nan)
        return FARADAY_C_MOL * sites * self.area_m2 * self.working_thickness_m

    @property
    def terms(self) -> CellTerms:
        """What turns C-rates and shares into amperes and coulombs."""
        return CellTerms(
            area_m2=self.area_m2,
            capacity_C=self.capacity_C,
            soc=self.soc,
            charge_per_x_C=self.charge_per_x_C,
            x0=self.x0,
        )


def read_cell(tables: ExperimentTable) -> Cell:
    """Return the cell that a file describes."""
    cell = tables.cell
    window = cell.window if len(cell.window) == 2 else [0.0, 0.0]
    return Cell(
        layers=tuple(layer.strip() for layer in cell.stack.split("|")),
        width_m=cell.width,
        depth_m=cell.depth,
        working_material=cell.working.material,
        working_thickness_m=cell.working.thickness,
        window_V=(window[0], window[1]),
        depth_sigma_m=_or_nan(cell.depth_sigma),
        mass_kg=_or_nan(cell.mass),
        given_capacity_C=_or_nan(cell.capacity),
        given_charge_per_x_C=_or_nan(cell.charge_per_x),
        soc=_or_nan(cell.soc),
        x0=_or_nan(cell.x0),
        comments=cell.comments,
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def check_cell(tables: ExperimentTable, cell: Cell) -> _Found:
    """Return what is wrong with a cell."""
    found: _Found = []
    for name in ("width", "depth"):
        if getattr(tables.cell, name) <= 0:
            found.append((("cell", name), "must be more than nothing, such as 5 um"))
    for name, example in (("mass", "5 pg"), ("capacity", "12 nC"), ("charge_per_x", "25 nC")):
        value = getattr(tables.cell, name)
        if value is not None and value <= 0:
            found.append((("cell", name), f"must be more than nothing, such as {example}"))
    sigma = tables.cell.depth_sigma
    if sigma is not None and not 0 <= sigma < tables.cell.depth:
        found.append((("cell", "depth_sigma"), "must be less than the depth, such as 10 nm"))
    for name in ("soc", "x0"):
        value = getattr(tables.cell, name)
        if value is not None and not 0 <= value <= 1:
            found.append((("cell", name), f"{value:g} lies outside 0 to 1"))
    if cell.working_thickness_m <= 0:
        found.append((("cell", "working"), "thickness must be more than nothing"))
    if cell.working_material not in cell.layers:
        found.append(
            (
                ("cell", "working"),
                f"{cell.working_material!r} is no layer of the stack; "
                f"it has {', '.join(cell.layers)}",
            )
        )
    return found
