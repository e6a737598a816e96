"""The hidden cell: a differential-algebraic model, stepped implicitly.

Node equation, with currents that charge counted positive::

    d(C V)/dt = I_source - I_ion - V / R_leak - V / R_short - I_dielectric + I_beam
    V       = U(f) + I_ion R_se + (2 R T / F) asinh(I_ion / (2 A i0))

``f`` is the converted share of the film. As the stray capacitance C vanishes the node
equation becomes algebraic, so each step is backward Euler with I_ion as the only
unknown: its residual grows monotonically and Newton finds its one root.
"""

import math
from dataclasses import dataclass

import numpy as np

FARADAY_C_MOL = 96_485.33212
THERMAL_V = 8.314462618 * 298.15 / FARADAY_C_MOL  # R T / F at 25 degrees C
NEWTON_LIMIT = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class CellParameters:
    """A film with a moving phase front between two contacts, and its holder.

    Parameters
    ----------
    area_m2, film_thickness_m
        Of the working film.
    front_start_m
        Depth of the front from the electrolyte when the cell is new.
    concentration_step_mol_m3
        Lithium that the front takes out of a unit of volume.
    electrolyte_ohm, exchange_current_A
        Series resistance, and ``A i0`` of the charge transfer.
    stray_F, leak_ohm
        Of the holder and its cables.
    dielectric_F, dielectric_tau_s
        The slow branch of the insulation.
    plateau_V
        Equilibrium voltage while the front is in the middle of the film.
    beam_current_A
        Beam-induced current into the positive terminal while the beam is on.
    beam_tau_s
        How long that current takes to follow the beam, as a first-order lag; 0 for at once.
    change_at_s, change_over_s
        When holder and cables change, from the beginning of the world, and for how long
        they go on changing; 0 for a jump.
    leak_change_S, stray_change_F
        By how much.
    open_contact
        Other than 0 for a cell that is in the holder and does not touch its contacts.
    short_ohm
        Across the mated cell, as redeposited metal makes it.
    soft_ohm, soft_on_per_s, soft_off_per_s
        A soft short across the mated cell, and how often it closes and opens.
    """

    area_m2: float
    film_thickness_m: float
    front_start_m: float
    concentration_step_mol_m3: float
    electrolyte_ohm: float
    exchange_current_A: float
    stray_F: float
    leak_ohm: float
    dielectric_F: float
    dielectric_tau_s: float
    plateau_V: float = 3.92
    beam_current_A: float = 0.0
    beam_tau_s: float = 0.0
    change_at_s: float = 0.0
    change_over_s: float = 0.0
    leak_change_S: float = 0.0
    stray_change_F: float = 0.0
    open_contact: float = 0.0
    short_ohm: float = math.inf
    soft_ohm: float = math.inf
    soft_on_per_s: float = 0.0
    soft_off_per_s: float = 0.0

    def changed_share(self, t_s: float) -> float:
        """Share of the holder's change that has happened at a time of the world."""
        since_s = t_s - self.change_at_s
        if since_s <= 0 or self.change_over_s <= 0:
            return 1.0 if since_s > 0 else 0.0
        return min(since_s / self.change_over_s, 1.0)

    @property
    def charge_per_m_C(self) -> float:
        """Charge that moves the front by a metre."""
        return FARADAY_C_MOL * self.concentration_step_mol_m3 * self.area_m2


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What the source-measure unit does to the terminals.

    Parameters
    ----------
    mode
        ``"current"``, ``"voltage"`` or ``"open"``.
    level, clamp
        A and V for a current source, V and A for a voltage source.
    series_ohm
        Between a voltage source and the cell, as of a voltmeter in series; it has no clamp.
    """

    mode: str = "open"
    level: float = 0.0
    clamp: float = math.inf
    series_ohm: float = 0.0


def open_circuit_V(converted: float, plateau_V: float = 3.92) -> float:
    """Return the equilibrium voltage at a converted share, finite everywhere.

    A flat two-phase plateau, that of LiCoO2 where nothing else is said, a drop where it is
    fully lithiated and a rise where the film is used up.
    """
    f = min(max(converted, -0.2), 1.2)
    middle_V = plateau_V + 0.04 * (f - 0.5)
    return middle_V - 0.20 * math.exp(-f / 0.03) + 0.30 * math.exp((f - 1.0) / 0.03)


class Cell:
    """State of the cell and its holder; `step` moves it on.

    Attributes
    ----------
    voltage_V, source_A, ion_A
        Of the last step.
    front_m
        Depth of the front from the electrolyte.
    clamped
        True when the source was held by its clamp.
    beam_on
        Share of beam that is on, over the next step.
    beam_A
        Beam-induced current, mean over the last step.
    """

    def __init__(
        self,
        parameters: CellParameters,
        *,
        mated: bool = True,
        now_s: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.parameters = parameters
        self.mated = mated and not parameters.open_contact
        self._now_s = now_s
        self.soft_on = False
        self._soft = np.random.default_rng([seed, 4])
        self.front_m = parameters.front_start_m
        self.voltage_V = self.equilibrium_V if self.mated else 0.0
        self.stray_F = self._stray_F()
        self._stray_before_F = self.stray_F
        self.start_stray_C = self.stray_F * self.voltage_V
        self.slow_V = self.voltage_V  # on the dielectric branch
        self.source_A = 0.0
        self.ion_A = 0.0
        self.clamped = False
        self.beam_on = 1.0
        self._beam_now_A = parameters.beam_current_A  # behind its lag
        self.beam_A = parameters.beam_current_A if self.mated else 0.0
        # The ledger: charges since the cell was made, all with the same I_ion.
        self.source_C = self.ion_C = self.leak_C = self.slow_C = self.beam_C = 0.0
        self.soft_C = 0.0

    @property
    def equilibrium_V(self) -> float:
        """Voltage at rest."""
        p = self.parameters
        return open_circuit_V(self.front_m / p.film_thickness_m, p.plateau_V)

    def mate(self) -> None:
        """Put the cell into the holder: the holder takes the cell's voltage."""
        self.mated = True
        self.voltage_V = self.slow_V = self.equilibrium_V
        self.start_stray_C = self.stray_F * self.voltage_V

    def _stray_F(self) -> float:
        p = self.parameters
        if p.stray_change_F == 0:
            return p.stray_F
        return p.stray_F + p.stray_change_F * p.changed_share(self._now_s)

    @property
    def leak_S(self) -> float:
        """Leakage of the holder now."""
        p = self.parameters
        if p.leak_change_S == 0:
            return 1 / p.leak_ohm
        return 1 / p.leak_ohm + p.leak_change_S * p.changed_share(self._now_s)

    @property
    def soft_S(self) -> float:
        """Conductance of what shorts the cell now, hard and soft."""
        p = self.parameters
        if not self.mated:
            return 0.0
        return 1 / p.short_ohm + (1 / p.soft_ohm if self.soft_on else 0.0)

    def _move_on(self, dt_s: float) -> None:
        """Let what changes by itself change: the holder, and a soft short."""
        p = self.parameters
        self._now_s += dt_s
        self._stray_before_F, self.stray_F = self.stray_F, self._stray_F()
        self._let_beam_follow(dt_s)
        rate = p.soft_off_per_s if self.soft_on else p.soft_on_per_s
        if rate > 0 and self._soft.random() < -math.expm1(-rate * dt_s):
            self.soft_on = not self.soft_on

    def _let_beam_follow(self, dt_s: float) -> None:
        """Take the beam's current over a step, exactly for a beam that is steady in it."""
        p = self.parameters
        settled_A = p.beam_current_A * self.beam_on
        if p.beam_tau_s > 0:
            left = dt_s / p.beam_tau_s
            away_A = self._beam_now_A - settled_A
            mean_A = settled_A + away_A * -math.expm1(-left) / left
            self._beam_now_A = settled_A + away_A * math.exp(-left)
        else:
            mean_A = self._beam_now_A = settled_A
        self.beam_A = mean_A if self.mated else 0.0

    def step(self, dt_s: float, source: Source) -> None:
        """Advance by ``dt_s`` under a source."""
        self.clamped = False
        self._move_on(dt_s)
        self._look_ahead(dt_s)
        if source.mode == "voltage" and source.series_ohm > 0:
            self._hold_through(dt_s, source)
        elif source.mode == "voltage":
            self._hold_voltage(dt_s, source)
        else:
            self._hold_current(dt_s, source)

    def _hold_current(self, dt_s: float, source: Source) -> None:
        current_A = source.level if source.mode == "current" else 0.0
        voltage_V, ion_A = self._solve(dt_s, current_A)
        if source.mode == "current" and abs(voltage_V) > source.clamp:
            held_V = math.copysign(source.clamp, voltage_V)
            self.clamped = True
            ion_A = self._ion_at(held_V)
            current_A = self._needed_A(dt_s, held_V, ion_A)
            voltage_V = held_V
        self._commit(dt_s, voltage_V, current_A, ion_A)

    def _hold_voltage(self, dt_s: float, source: Source) -> None:
        voltage_V, ion_A = source.level, self._ion_at(source.level)
        current_A = self._needed_A(dt_s, voltage_V, ion_A)
        if abs(current_A) > source.clamp:
            self.clamped = True
            current_A = math.copysign(source.clamp, current_A)
            voltage_V, ion_A = self._solve(dt_s, current_A)
        self._commit(dt_s, voltage_V, current_A, ion_A)

    def _hold_through(self, dt_s: float, source: Source) -> None:
        given_A = source.level / source.series_ohm
        voltage_V, ion_A = self._solve(dt_s, given_A, series_S=1 / source.series_ohm)
        self._commit(dt_s, voltage_V, (source.level - voltage_V) / source.series_ohm, ion_A)

    def _commit(self, dt_s: float, voltage_V: float, current_A: float, ion_A: float) -> None:
        p = self.parameters
        slow_A = p.dielectric_F * (voltage_V - self.slow_V) / (p.dielectric_tau_s + dt_s)
        if p.dielectric_F > 0:
            self.slow_V += slow_A * dt_s / p.dielectric_F
        self._move(dt_s, ion_A)
        self.source_C += current_A * dt_s
        self.ion_C += ion_A * dt_s
        self.leak_C += voltage_V * self.leak_S * dt_s
        self.soft_C += voltage_V * self.soft_S * dt_s
        self.slow_C += slow_A * dt_s
        self.beam_C += self.beam_A * dt_s
        self.voltage_V, self.source_A, self.ion_A = voltage_V, current_A, ion_A

    # --- what another film does otherwise ---------------------------------------------

    def _look_ahead(self, dt_s: float) -> None:
        """Prepare a step; the rest voltage of a film with a front waits for no one."""

    def _move(self, dt_s: float, ion_A: float) -> None:
        """Take what crossed the electrolyte into the film."""
        self.front_m += ion_A * dt_s / self.parameters.charge_per_m_C

    # --- the algebra -------------------------------------------------------------------

    def _polarised_V(self, rest_V: float, ion_A: float) -> float:
        p = self.parameters
        return (
            rest_V
            + ion_A * p.electrolyte_ohm
            + 2 * THERMAL_V * math.asinh(ion_A / (2 * p.exchange_current_A))
        )

    def _slope_ohm(self, ion_A: float) -> float:
        p = self.parameters
        root_A = math.hypot(ion_A, 2 * p.exchange_current_A)
        return p.electrolyte_ohm + 2 * THERMAL_V / root_A

    def _solve(
        self, dt_s: float, current_A: float, *, series_S: float = 0.0
    ) -> tuple[float, float]:
        """Return voltage and ionic current at the end of a step under ``current_A``."""
        p = self.parameters
        slow_S = p.dielectric_F / (p.dielectric_tau_s + dt_s)
        node_S = self.stray_F / dt_s + self.leak_S + self.soft_S + slow_S + series_S
        stored_C = self._stray_before_F * self.voltage_V
        given_A = current_A + stored_C / dt_s + slow_S * self.slow_V
        if not self.mated:
            return given_A / node_S, 0.0
        given_A += self.beam_A
        rest_V, ion_A = self.equilibrium_V, self.ion_A
        for _ in range(NEWTON_LIMIT):
            voltage_V = self._polarised_V(rest_V, ion_A)
            residual_A = node_S * voltage_V + ion_A - given_A
            change_A = residual_A / (node_S * self._slope_ohm(ion_A) + 1.0)
            ion_A -= change_A
            if abs(change_A) <= 1e-11 * abs(ion_A) + 1e-26:
                break
        return self._polarised_V(rest_V, ion_A), ion_A

    def _ion_at(self, voltage_V: float) -> float:
        """Return the ionic current at a fixed terminal voltage."""
        if not self.mated:
            return 0.0
        rest_V, ion_A = self.equilibrium_V, self.ion_A
        for _ in range(NEWTON_LIMIT):
            change_A = (self._polarised_V(rest_V, ion_A) - voltage_V) / self._slope_ohm(ion_A)
            ion_A -= change_A
            if abs(change_A) <= 1e-11 * abs(ion_A) + 1e-26:
                break
        return ion_A

    def _needed_A(self, dt_s: float, voltage_V: float, ion_A: float) -> float:
        """Return the source current that holds ``voltage_V`` for a step."""
        p = self.parameters
        slow_A = p.dielectric_F * (voltage_V - self.slow_V) / (p.dielectric_tau_s + dt_s)
        return (
            (self.stray_F * voltage_V - self._stray_before_F * self.voltage_V) / dt_s
            + ion_A
            + voltage_V * (self.leak_S + self.soft_S)
            + slow_A
            - self.beam_A
        )
