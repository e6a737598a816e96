"""Techniques as data: what is held, and until when. No hardware in sight."""

from dataclasses import dataclass

from potentiostat.limits import Condition, Envelope
from potentiostat.protocol import Setpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a plan: a level held until the first of its conditions.

    Parameters
    ----------
    name
        Technique, as in the experiment file (``"ocv"`` or ``"cp"``).
    current_A
        Level; 0 for open circuit, which on a source-measure unit is 0 A with a clamp.
    until
        End conditions; the first that is met ends the step.
    """

    name: str
    current_A: float
    until: tuple[Condition, ...]

    def setpoint(self, envelope: Envelope, range_A: float) -> Setpoint:
        """Return the galvanostatic set-point, clamped at the envelope's upper voltage."""
        return Setpoint(
            mode="current",
            level=self.current_A,
            clamp=envelope.voltage_max_V,
            range_A=range_A,
        )

    @property
    def longest_s(self) -> float:
        """Longest possible duration in s, infinite without a condition on time."""
        times = [c.value for c in self.until if c.quantity == "t" and c.relation == ">"]
        return min(times, default=float("inf"))
