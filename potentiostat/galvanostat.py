"""A galvanostat in software: a current held by a voltage source and a slow ammeter.

Arithmetic only: readings of the current go in, the next level of the source comes out.
What is controlled, seen from the source's level V to the reading I of the ammeter::

    I / V  =  (1 + s R C) / R  *  1 / (1 + s tau)  *  delay of a reading

R is the cell's resistance, C the stray capacitance across it, tau the lag of the current
range. The loop takes the error of the current, multiplies it by the estimate of R, takes
the lead of R C out again (with the largest C that may be), and integrates::

    dV/dt  =  omega * R_est / (1 + s R_est C_max) * error,   omega = 1 / (2 (tau + delay))

So a cell of any R is met with the same loop gain, omega / s, and the same margins: lag and
delay together cost half a radian at omega, which leaves 61 degrees of phase and a factor of
3 of gain. The estimate begins with one step of the source for each 1/omega and grows with
what the current answers to the voltage, so that it comes from below. An answer that swings
about its set-point halves it. Once the current has arrived a slow integral is added, which
takes out the drift of a cell that charges; it costs another 11 degrees.
"""

import cmath
import math
from dataclasses import dataclass

LARGEST_STRAY_F = 300e-12  # of holders and cables
DRIFT_SHARE = 0.1  # of omega: where the slow integral takes over
ARRIVED = 0.1  # share of the set-point within which the estimate is left alone
DELAY_READINGS = 1.5  # from the middle of a reading to the middle of what follows from it
STEPS_TO_LEARN = 2.0
MEAN_OF = 6.0  # times 1/omega, over which the mean error is formed


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """What is known of source, meter and wiring before a cell is there.

    Parameters
    ----------
    lag_s
        Time constant of the current range, at most.
    noise_A
        Of a reading, 1 sigma.
    step_V
        Smallest step of the source.
    stray_F
        Capacitance across the cell, at most.
    """

    lag_s: float
    noise_A: float
    step_V: float
    stray_F: float = LARGEST_STRAY_F


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopFigures:
    """What a loop promises, once it has settled, in the ammeter's own measure.

    Parameters
    ----------
    crossover_rad_s
        Where the loop gain is one.
    settling_s
        From the set-point until the loop says that it has settled, at most: the estimate
        doubles its way up from one step, the cell charges, and the mean error is formed.
    ripple_A
        What one step of the source is to the meter, through cell and stray capacitance:
        the current goes up and down by that.
    error_A
        Of the mean over `MEAN_OF` / crossover. The error of the ammeter comes on top.
    noise_A
        Spread that the loop puts on the true current, by what it takes for a change.
    """

    crossover_rad_s: float
    settling_s: float
    ripple_A: float
    error_A: float
    noise_A: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """How far a loop is from swinging by itself."""

    phase_deg: float
    gain: float


def crossover_rad_s(plant: Plant, reading_s: float) -> float:
    """Return the bandwidth that range and readings permit."""
    return 1 / (2 * (plant.lag_s + DELAY_READINGS * reading_s))


def loop_gain(
    plant: Plant, omega: float, *, reading_s: float, estimate_ohm: float, ohm: float, stray_F: float
) -> complex:
    """Return the loop gain at an angular frequency, slow integral and all, for a true cell."""
    s = 1j * omega
    across = crossover_rad_s(plant, reading_s)
    drift = _drift_rad_s(across, estimate_ohm * plant.stray_F)
    control = across * estimate_ohm / s * (1 + drift / s)
    shaped = control / (1 + s * estimate_ohm * plant.stray_F)
    cell_S = (1 + s * ohm * stray_F) / ohm
    return shaped * cell_S / (1 + s * plant.lag_s) * cmath.exp(-s * DELAY_READINGS * reading_s)


def margins(
    plant: Plant, *, reading_s: float, estimate_ohm: float, ohm: float, stray_F: float
) -> Margins:
    """Return phase and gain margin of the loop with a true cell, found on a fine grid."""
    across = crossover_rad_s(plant, reading_s)
    grid = [across * 10 ** (k / 200) for k in range(-1600, 801)]
    phase_deg, gain, turned, before = math.inf, math.inf, 0.0, 0.0
    size_before = math.inf
    for omega in grid:
        found = loop_gain(
            plant,
            omega,
            reading_s=reading_s,
            estimate_ohm=estimate_ohm,
            ohm=ohm,
            stray_F=stray_F,
        )
        angle, size = cmath.phase(found), abs(found)
        if omega == grid[0]:
            turned = angle - 2 * math.pi if angle > 0 else angle
        else:
            turned_by = (angle - before + math.pi) % (2 * math.pi) - math.pi
            if turned > -math.pi >= turned + turned_by:
                gain = min(gain, 1 / size)
            turned += turned_by
        if size_before >= 1 > size:
            phase_deg = min(phase_deg, math.degrees(turned) + 180)
        before, size_before = angle, size
    return Margins(phase_deg=phase_deg, gain=gain)


class Galvanostat:
    """Holds a current, one correction for each reading.

    Parameters
    ----------
    plant
        Source, meter and wiring.
    target_A
        The set-point.
    window_V
        Levels that the source may have, low and high.
    level_V
        What the source has now.
    current_A
        What flows now, by the last reading.
    estimate_ohm
        Of the cell, from an earlier set-point; None where nothing is known.

    Attributes
    ----------
    estimate_ohm
        Resistance of the cell, as far as the current has answered; never taken too large
        but for errors of the source's steps.
    limited
        The window keeps the current from its set-point.
    settled
        The mean error is within what `figures` says.
    """

    def __init__(
        self,
        plant: Plant,
        *,
        target_A: float,
        window_V: tuple[float, float],
        level_V: float,
        current_A: float = 0.0,
        estimate_ohm: float | None = None,
    ) -> None:
        self._plant = plant
        self._window_V = window_V
        self._smallest_ohm = plant.step_V / abs(target_A)
        self.target_A = target_A
        self.estimate_ohm = max(estimate_ohm or 0.0, self._smallest_ohm)
        self._begun_ohm = self.estimate_ohm
        self.limited = self.settled = False
        self._level_V, self._rate_V_s, self._drift_A = level_V, 0.0, 0.0
        self._seen_V, self._seen_A = level_V, current_A  # as a meter with the range's lag
        self._mean_A = target_A - current_A
        self._swung = math.copysign(1.0, self._mean_A)
        self._away_s = 0.0
        self._reading_s = 0.0
        self._learn_from_here()

    def _learn_from_here(self) -> None:
        self._learning = True
        self._from_V, self._from_A = self._seen_V, self._seen_A

    def correct(self, current_A: float, *, reading_s: float, held_V: float) -> float:
        """Take a reading; return the level that the source should have now.

        Parameters
        ----------
        reading_s
            Since the reading before.
        held_V
            What the source had meanwhile, rounded as it may be.
        """
        self._reading_s = reading_s
        across = crossover_rad_s(self._plant, reading_s)
        error_A = self.target_A - current_A
        self._mean_A += (error_A - self._mean_A) * _share(reading_s, MEAN_OF / across)
        self._see(current_A, held_V, reading_s)
        self._estimate(error_A, across, reading_s)
        figures = self.figures
        held = figures.ripple_A <= abs(self.target_A) and abs(self._mean_A) <= figures.error_A
        self.settled = held and not (self._learning or self.limited)
        self._move(error_A, across, reading_s)
        return self._level_V

    def _see(self, current_A: float, held_V: float, reading_s: float) -> None:
        lag_s = self._plant.lag_s + DELAY_READINGS * reading_s
        self._seen_V += (held_V - self._seen_V) * _share(reading_s, lag_s)
        self._seen_A += (current_A - self._seen_A) * _share(reading_s, 2 * reading_s)

    def _estimate(self, error_A: float, across: float, reading_s: float) -> None:
        """Learn the cell's resistance while the error is large, and unlearn what swings."""
        large_A = max(ARRIVED * abs(self.target_A), 6 * self._plant.noise_A)
        swing_A = max(large_A, 2.5 * self._ripple_A(reading_s))
        sign = math.copysign(1.0, error_A)
        if abs(error_A) > swing_A and sign != self._swung:
            self.estimate_ohm = max(0.5 * self.estimate_ohm, 1e-3 * self._smallest_ohm)
            self._swung, self._learning, self._away_s = sign, False, 0.0
        elif abs(error_A) <= large_A or sign != self._swung:
            if self._learning:
                self._mean_A = error_A  # it has arrived: the way here is no error
            self._learning, self._away_s = False, 0.0
        elif not self._learning and abs(error_A) > swing_A:
            self._away_s += reading_s
            if self._away_s > MEAN_OF / across:
                self._learn_from_here()
        moved_V = abs(self._seen_V - self._from_V)
        if self._learning and not self.limited:
            answer_A = max(abs(self._seen_A - self._from_A), 4 * self._plant.noise_A)
            # Until the voltage has moved by enough the start is all that is known.
            found_ohm = math.inf
            if moved_V >= STEPS_TO_LEARN * self._plant.step_V:
                found_ohm = moved_V / answer_A
            grown_ohm = self.estimate_ohm * 2 ** (across * reading_s)
            self.estimate_ohm = max(min(found_ohm, grown_ohm), 1e-3 * self._smallest_ohm)

    def _move(self, error_A: float, across: float, reading_s: float) -> None:
        plant, (low_V, high_V) = self._plant, self._window_V
        if not self._learning and not self.limited:
            most_A = DRIFT_SHARE * abs(self.target_A)
            drift = _drift_rad_s(across, self.estimate_ohm * plant.stray_F)
            self._drift_A += drift * error_A * reading_s
            self._drift_A = min(max(self._drift_A, -most_A), most_A)
        wanted_V_s = across * self.estimate_ohm * (error_A + self._drift_A)
        self._rate_V_s += (wanted_V_s - self._rate_V_s) * _share(
            reading_s, self.estimate_ohm * plant.stray_F
        )
        # The stray capacitance never takes more than the set-point.
        fastest_V_s = abs(self.target_A) / plant.stray_F
        self._rate_V_s = min(max(self._rate_V_s, -fastest_V_s), fastest_V_s)
        wanted_V = self._level_V + self._rate_V_s * reading_s
        self._level_V = min(max(wanted_V, low_V), high_V)
        self.limited = self._level_V != wanted_V
        if self.limited:
            self._rate_V_s = self._drift_A = 0.0

    def _ripple_A(self, reading_s: float) -> float:
        """Return what a step of the source is to the meter: through cell and capacitance."""
        plant = self._plant
        lag_s = plant.lag_s + DELAY_READINGS * reading_s
        return plant.step_V * (1 / self.estimate_ohm + plant.stray_F / lag_s)

    @property
    def figures(self) -> LoopFigures:
        """What the loop promises with what it knows now."""
        plant = self._plant
        across = crossover_rad_s(plant, self._reading_s)
        ripple_A = self._ripple_A(self._reading_s)
        doublings = max(0.0, math.log2(self.estimate_ohm / self._begun_ohm))
        way_s = (doublings + MEAN_OF * math.log(1 / ARRIVED)) / across
        # Noise of a reading, let through by a loop of this bandwidth.
        passed = math.sqrt(min(1.0, 0.5 * across * self._reading_s))
        return LoopFigures(
            crossover_rad_s=across,
            settling_s=1.6 * (way_s + 3 * self.estimate_ohm * plant.stray_F),
            ripple_A=ripple_A,
            error_A=0.01 * abs(self.target_A) + 0.25 * ripple_A + plant.noise_A,
            noise_A=math.hypot(plant.noise_A * passed, ripple_A / 2),
        )


def _drift_rad_s(across: float, charging_s: float) -> float:
    """Return where the slow integral takes over: well below where the loop gain is one.

    With less capacitance than was taken out the gain is one at a lower frequency.
    """
    return DRIFT_SHARE * across / (1 + across * charging_s)


def _share(passed_s: float, constant_s: float) -> float:
    """Return how much of the way a first-order lag goes in a while."""
    return -math.expm1(-passed_s / constant_s) if constant_s > 0 else 1.0
