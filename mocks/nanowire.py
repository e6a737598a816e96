"""A silicon nanowire in vacuum: dark on bright, it swells across more than along."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mocks.scene import Scene, Truth
from mocks.scene_parameters import NanowireParameters

if TYPE_CHECKING:
    from mocks.scenario import Scenario

WIRE_TEXTURE = 0.01
TURN_RAD = 0.12  # of the wire against the rows of the camera
END_ROUNDS = 60
SAMPLES = 4001  # along the wire, for the numbers of a shape


@dataclass(frozen=True, slots=True, kw_only=True)
class WireShape:
    """Outline of a wire with round ends, in px.

    Parameters
    ----------
    left_px, right_px
        Ends along the axis, from the middle of the field.
    radius_px, reacted_px
        Half width of the pristine and of the reacted part.
    front_px, taper_px
        Where one turns into the other, and over what length; the reacted part is on the left.
    """

    left_px: float
    right_px: float
    radius_px: float
    reacted_px: float = math.nan
    front_px: float = -math.inf
    taper_px: float = 1.0

    def half_width(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return half the width at places along the axis, px."""
        if not math.isfinite(self.front_px):
            return np.full(x.shape, self.radius_px)
        reacted = special.ndtr((self.front_px - x) / self.taper_px)
        return np.asarray(self.radius_px + (self.reacted_px - self.radius_px) * reacted)

    def outside(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the distance from the outline, negative inside; near it, exact to a taper."""
        first, last = self._straight()
        at = np.clip(x, first, last)
        width = self.half_width(at)
        slope = (self.half_width(at + 0.5) - self.half_width(at - 0.5)) * (at == x)
        return np.asarray((np.hypot(x - at, y) - width) / np.sqrt(1 + slope**2))

    def truth(self, pixel_m: float) -> dict[str, float]:
        """Return length, mean width of the middle half, area and volume of revolution, SI."""
        first, last = self._straight()
        x = np.linspace(self.left_px, self.right_px, SAMPLES)
        at = np.clip(x, first, last)
        y = np.sqrt(np.maximum(self.half_width(at) ** 2 - (x - at) ** 2, 0.0))
        length = self.right_px - self.left_px
        middle = np.abs(x - (self.left_px + self.right_px) / 2) <= length / 4
        return {
            "length": length * pixel_m,
            "diameter": float(2 * y[middle].mean()) * pixel_m,
            "area": float(np.trapezoid(2 * y, x)) * pixel_m**2,
            "volume": float(np.trapezoid(np.pi * y**2, x)) * pixel_m**3,
        }

    def _straight(self) -> tuple[float, float]:
        """Return where the round ends begin; each is as wide as the wire is there."""
        left = right = self.radius_px
        for _ in range(END_ROUNDS):
            first, last = self.half_width(
                np.array([self.left_px + left, self.right_px - right])
            ).tolist()
            left, right = first, last
        return self.left_px + left, self.right_px - right


class WireScene(Scene):
    """A wire of uniform darkness in the middle of the field."""

    def field(self, drift_px: tuple[float, float]) -> tuple[NDArray[np.float64], ...]:
        """Return coordinates along and across the wire, px, shape (height, width) each."""
        height, width = self.shape
        x = np.arange(width)[None, :] - (width - 1) / 2 - drift_px[0]
        y = np.arange(height)[:, None] - (height - 1) / 2 - drift_px[1]
        c, s = math.cos(TURN_RAD), math.sin(TURN_RAD)
        return c * x + s * y, c * y - s * x

    def covered(self, outside_px: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how far a pixel is inside an outline, 0 to 1."""
        width_px = math.hypot(self.camera.edge_width_m / self.camera.pixel_size_m, 12**-0.5)
        return np.asarray(special.ndtr(-outside_px / width_px))

    def seen(
        self,
        inside: NDArray[np.float64],
        wire: NDArray[np.float64] | float,
        drift_px: tuple[float, float],
    ) -> NDArray[np.float64]:
        """Return the transmission of a wire in vacuum."""
        dark = wire * (1 + WIRE_TEXTURE * self.grains.moved(*drift_px))
        return np.asarray(1 + (dark - 1) * inside)


class NanowireScene(WireScene):
    """A wire whose diameter grows with the lithium in it, and which may crack."""

    def __init__(self, scenario: "Scenario", parameters: NanowireParameters, seed: int) -> None:
        super().__init__(scenario, seed)
        self._parameters = parameters
        self._whole_m = scenario.cell.film_thickness_m

    def transmission(self, front_m: float, drift_px: tuple[float, float]) -> NDArray[np.float64]:
        """Return the share of beam that each pixel lets through, shape (height, width)."""
        p, share = self._parameters, self._share(front_m)
        x, y = self.field(drift_px)
        shape, gap_px = self.wire(front_m), self._gap_m(share) / self.camera.pixel_size_m
        inside = self.covered(shape.outside(x, y))
        if gap_px > 0:
            at_px = 0.1 * p.length_m / self.camera.pixel_size_m
            left, right = x + gap_px / 2, x - gap_px / 2
            inside = self.covered(shape.outside(left, y)) * self.covered(left - at_px)
            inside = inside + self.covered(shape.outside(right, y)) * self.covered(at_px - right)
        wire = p.wire_transmission + share * (p.lithiated_transmission - p.wire_transmission)
        return self.seen(inside, wire, drift_px)

    def truth(self, front_m: float) -> Truth:
        """Return the size of the wire, without its crack, and how wide that is."""
        share = self._share(front_m)
        size, gap_m = self.wire(front_m).truth(self.camera.pixel_size_m), self._gap_m(share)
        return {"swelling": {**size, "cracks": float(gap_m > 0), "gap": gap_m}}

    def _gap_m(self, share: float) -> float:
        p = self._parameters
        if share < p.fracture_share:
            return 0.0
        return p.crack_m + p.opening_m * (share - p.fracture_share) / (1 - p.fracture_share + 1e-9)

    def _share(self, front_m: float) -> float:
        return min(max(front_m / self._whole_m, 0.0), 1.0)

    def wire(self, front_m: float) -> WireShape:
        """Return the outline of the wire, as if it had no crack."""
        p, size_m, share = self._parameters, self.camera.pixel_size_m, self._share(front_m)
        longer = 1 + p.length_growth * share
        wider = math.sqrt((1 + p.volume_growth * share) / longer)
        half_px = p.length_m * longer / size_m / 2
        radius_px = p.diameter_m * wider / size_m / 2
        return WireShape(left_px=-half_px, right_px=half_px, radius_px=radius_px)
