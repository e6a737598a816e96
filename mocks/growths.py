"""Lithium that grows from one electrode towards the other, as its charge asks for.

A whisker through a solid electrolyte, or a dendrite in a liquid one that is plated and
stripped, and leaves parts behind that have lost their contact.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mocks.cell import FARADAY_C_MOL
from mocks.scene import Scene, Truth
from mocks.scene_parameters import DendriteParameters, GrowthParameters

if TYPE_CHECKING:
    from mocks.scenario import Scenario

LITHIUM_M3_MOL = 13.02e-6
TREE_SEED = 11
NECK_RATIO = 4.0  # of the radius: what dissolves first of a branch that is left behind
# Of the cube of the radius: what two crossing cylinders share on one side (Archimedes), at a
# right angle, and a half-sphere.
SHARED_RATIO, CAP_RATIO = 8 / 3, 2 * math.pi / 3
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Branch:
    """A straight piece: where it begins, its direction, and the path there from the electrode."""

    x_px: float
    y_px: float
    turn_rad: float
    begin_px: float
    is_left_behind: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """What is there of a branch: between which paths, and how wide its neck is, of its width."""

    branch: Branch
    first_px: float
    last_px: float
    neck: float = 1.0


class GrowthScene(Scene):
    """Lithium between two electrodes, which face each other left and right.

    Parameters
    ----------
    scenario, seed
        See `Scene`.
    growth
        What grows.

    Attributes
    ----------
    root_px, target_px
        Columns of the electrodes' edges.
    """

    def __init__(self, scenario: "Scenario", growth: GrowthParameters, seed: int) -> None:
        super().__init__(scenario, seed)
        self._growth = growth
        self._new_m = self._most_m = scenario.cell.front_start_m
        self._charge_per_m_C = scenario.cell.charge_per_m_C
        height, width = self.shape
        size_m = self.camera.pixel_size_m
        self.root_px = growth.electrode_ratio * width
        self.target_px = (1 - growth.electrode_ratio) * width
        self.radius_px = growth.diameter_m / size_m / 2
        rng = np.random.default_rng([seed, TREE_SEED])
        middle = height * (0.5 + 0.06 * rng.uniform(-1, 1))
        reach = 0.5 * (self.target_px - self.root_px) * math.tan(growth.tilt_rad)
        trunk = Branch(self.root_px, middle - reach, growth.tilt_rad, 0.0)
        self.branches = [trunk, *_side_branches(trunk, growth, size_m, rng)]
        if 4 * self.radius_px > height or growth.start_m / size_m > self.target_px - self.root_px:
            raise ValueError(
                f"lithium of {2 * self.radius_px:.0f} px across and {growth.start_m / size_m:.0f} "
                f"px along does not fit into a field of {width} x {height} px; take larger pixels"
            )

    def _hidden_px(self, branch: Branch) -> float:
        """Return how much of a branch's length adds no volume: it is in the trunk, or its end."""
        if branch.begin_px == 0:
            return 0.0
        sine = abs(math.sin(branch.turn_rad - self.branches[0].turn_rad))
        return max(SHARED_RATIO / sine - CAP_RATIO, 0.0) * self.radius_px / math.pi

    def _length_px(self, branch: Branch, path_px: float) -> float:
        """Return the length of a cylinder that holds what has grown along one path so far."""
        return max(path_px - branch.begin_px - self._hidden_px(branch), 0.0)

    def _volume_px(self, path_px: float, *, left_behind: bool | None = None) -> float:
        """Return the volume of what has grown so far along every path."""
        area = math.pi * self.radius_px**2
        return area * sum(
            self._length_px(b, path_px)
            for b in self.branches
            if left_behind is None or b.is_left_behind is left_behind
        )

    def _path_px(self, volume_px: float, *, left_behind: bool | None = None) -> float:
        """Return how far a volume reaches along every path."""
        low, high = 0.0, 4.0 * (self.target_px - self.root_px)
        for _ in range(60):
            middle = 0.5 * (low + high)
            if self._volume_px(middle, left_behind=left_behind) < volume_px:
                low = middle
            else:
                high = middle
        return 0.5 * (low + high)

    def _grown_px(self, front_m: float) -> float:
        """Return the volume for a charge: what was there, and ``Q V_m / F``."""
        charge_C = (front_m - self._new_m) * self._charge_per_m_C
        size_m = self.camera.pixel_size_m
        plated = charge_C * LITHIUM_M3_MOL / FARADAY_C_MOL / size_m**3
        return max(self._volume_px(self._growth.start_m / size_m) + plated, 0.0)

    def pieces(self, front_m: float) -> list[Piece]:
        """Return what is there of each branch.

        Stripping thins the necks of those that are left behind, before anything else; once
        they are gone, what is beyond them has lost its contact, and the rest is stripped.
        """
        self._most_m = max(self._most_m, front_m)
        grown_px, left_px = self._grown_px(self._most_m), self._grown_px(front_m)
        most_px = self._path_px(grown_px)
        neck_px, area = NECK_RATIO * self.radius_px, math.pi * self.radius_px**2
        lengths = [most_px - b.begin_px - neck_px for b in self.branches if b.is_left_behind]
        # Beyond its neck a branch has a round end on either side.
        ends_px = 2 * CAP_RATIO * self.radius_px**3
        behind_px = sum(area * length + ends_px for length in lengths if length > 0)
        necks_px = self._volume_px(most_px, left_behind=True) - behind_px
        neck, path = 1.0, self._path_px(left_px)
        if necks_px > 0:
            neck = math.sqrt(max(1 - (grown_px - left_px) / necks_px, 0.0))
            path = most_px
            if neck == 0:
                path = self._path_px(max(left_px - behind_px, 0.0), left_behind=False)
        return [
            Piece(b, b.begin_px + (neck_px if neck == 0 else 0.0), most_px, neck)
            if b.is_left_behind
            else Piece(b, b.begin_px, path)
            for b in self.branches
        ]

    def layer(self, front_m: float, drift_px: tuple[float, float]) -> Floats:
        """Return which share of each pixel holds a decomposition layer, shape (height, width).

        It is around lithium, and wherever lithium has been.
        """
        lithium = self.coverage(front_m, drift_px)
        around_px = self._growth.layer_m / self.camera.pixel_size_m
        whole = self.coverage(max(self._most_m, front_m), drift_px, wider_px=around_px)
        return np.asarray(np.maximum(whole - lithium, 0.0))

    def coverage(
        self,
        front_m: float,
        drift_px: tuple[float, float],
        *,
        behind: bool | None = None,
        wider_px: float = 0.0,
    ) -> Floats:
        """Return which share of each pixel holds lithium, shape (height, width).

        Parameters
        ----------
        behind
            Only what has lost its contact, or only what has not; None for all.
        wider_px
            Of what is around lithium by so much, too.
        """
        dx, dy = drift_px
        height, width = self.shape
        y = np.arange(height)[:, None] - dy
        x = np.arange(width)[None, :] - dx
        beyond = np.full(self.shape, np.inf)
        for piece in self.pieces(front_m):
            branch, first, last = piece.branch, piece.first_px, piece.last_px
            other = behind is not None and (piece.neck == 0) is not behind
            if last <= first or other:
                continue
            cosine, sine = math.cos(branch.turn_rad), math.sin(branch.turn_rad)
            along = (x - branch.x_px) * cosine + (y - branch.y_px) * sine
            across = (y - branch.y_px) * cosine - (x - branch.x_px) * sine
            from_px, to_px = first - branch.begin_px, self._reach_px(branch, last)
            if branch.begin_px == 0:
                from_px = -10 * self.radius_px  # out of the electrode
            rods = [(from_px, max(to_px, from_px), self.radius_px)]
            if 0 < piece.neck < 1:
                thick_px = from_px + NECK_RATIO * self.radius_px
                rods = [(from_px, min(to_px, thick_px), piece.neck * self.radius_px)]
                if to_px > thick_px:
                    rods.append((thick_px, to_px, self.radius_px))
            for begin, end, radius in rods:
                past = np.maximum(np.maximum(begin - along, along - end), 0.0)
                beyond = np.minimum(beyond, np.hypot(past, across) - radius - wider_px)
        return np.asarray(special.ndtr(-beyond / self._soft_px))

    def _reach_px(self, branch: Branch, path_px: float) -> float:
        """Return how far the middle of a branch's round end is from its beginning."""
        return path_px - branch.begin_px - (self.radius_px if branch.begin_px == 0 else 0.0)

    @property
    def _soft_px(self) -> float:
        return math.hypot(self.camera.edge_width_m / self.camera.pixel_size_m, math.sqrt(1 / 12))

    def transmission(self, front_m: float, drift_px: tuple[float, float]) -> Floats:
        """Return the share of beam that each pixel lets through, shape (height, width)."""
        p, (dx, dy) = self._growth, drift_px
        x = np.arange(self.shape[1]) - dx
        between = special.ndtr((x - self.root_px) / self._soft_px)
        between = between * special.ndtr((self.target_px - x) / self._soft_px)
        lithium = 1 + p.object_contrast * self.coverage(front_m, drift_px)
        if p.layer_m > 0:
            lithium += p.layer_contrast * self.layer(front_m, drift_px)
        level = p.electrode_level * (1 - between) + p.electrolyte_level * between * lithium
        coarse = p.electrode_texture_ratio * (1 - between) + p.electrolyte_texture_ratio * between
        texture = 1 + coarse * self.grains.moved(dx, dy)
        return np.asarray(level * np.maximum(texture, 0.05))

    def truth(self, front_m: float) -> Truth:
        """Return the foremost end, its path, and areas and volumes, in SI units.

        With a decomposition layer around it, the ends are those of lithium and the area is of
        both, of which `strong_area` and `weak_area` are one each.
        """
        size_m, r = self.camera.pixel_size_m, self.radius_px
        pieces = [p for p in self.pieces(front_m) if p.last_px > p.first_px]
        ends = [
            (
                p.branch.x_px
                + self._reach_px(p.branch, p.last_px) * math.cos(p.branch.turn_rad)
                + r,
                p.last_px,
            )
            for p in pieces
            if p.neck > 0
        ]
        foremost_px, path_px = max(ends, default=(self.root_px, 0.0))
        inside = np.clip(np.arange(self.shape[1]) + 0.5 - self.root_px, 0.0, 1.0)
        found = {
            "length": path_px * size_m,
            "tip_distance": (self.target_px - foremost_px) * size_m,
        }
        layer_m2 = math.nan
        if self._growth.layer_m > 0:
            layer_m2 = float((self.layer(front_m, (0.0, 0.0)) * inside).sum()) * size_m**2
        if isinstance(self._growth, DendriteParameters):
            covered = self.coverage(front_m, (0.0, 0.0)) * inside
            behind = self.coverage(front_m, (0.0, 0.0), behind=True) * inside
            apart = any(p.neck == 0 for p in pieces)
            # An end counts once it stands out by its own width, and while it is in contact.
            clear = [
                p
                for p in pieces
                if p.neck > 0
                and (p.branch.begin_px == 0 or self._reach_px(p.branch, p.last_px) > 3 * r)
            ]
            found |= {
                "area": float(covered.sum()) * size_m**2,
                "residual_area": (float(behind.sum()) if apart else 0.0) * size_m**2,
                "branches": float(len(clear)),
            }
            return {"dendrite": _with_layer(found, layer_m2)}
        area_px = 2 * r * (path_px - r) + math.pi * r**2 / 2
        # Its end is a half-sphere, which holds a third of its radius less than a cylinder.
        volume_px = math.pi * r**2 * (path_px - r / 3)
        whole = {"area": area_px * size_m**2, "volume": volume_px * size_m**3}
        return {"whisker": _with_layer(found | whole, layer_m2)}


def _with_layer(found: dict[str, float], layer_m2: float) -> dict[str, float]:
    """Return what is true with the area of a layer; NaN where there is none."""
    if math.isnan(layer_m2):
        return found
    metal_m2 = found["area"]
    both = {"area": metal_m2 + layer_m2, "strong_area": metal_m2, "weak_area": layer_m2}
    return found | both


def _side_branches(
    trunk: Branch, growth: GrowthParameters, size_m: float, rng: np.random.Generator
) -> list[Branch]:
    if not isinstance(growth, DendriteParameters):
        return []
    found = []
    for k in range(growth.branches):
        begin = (growth.start_m + (k + 0.5 + 0.2 * rng.uniform(-1, 1)) * growth.spacing_m) / size_m
        side = 1 if k % 2 else -1
        found.append(
            Branch(
                trunk.x_px + begin * math.cos(trunk.turn_rad),
                trunk.y_px + begin * math.sin(trunk.turn_rad),
                trunk.turn_rad + side * rng.uniform(0.75, 1.05),
                # It comes out when the end of the trunk has passed.
                begin + growth.diameter_m / size_m / 2,
                is_left_behind=k < growth.dead_branches,
            )
        )
    return found
