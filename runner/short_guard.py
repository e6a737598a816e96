"""What a guardian makes of a voltage that falls at once at a held current: a short."""

from correlate.soft_short import ShortWatch
from potentiostat.records import Reading
from potentiostat.segments import Segment


class ShortGuard:
    """Looks for shorts reading by reading, while the current is held or nothing flows."""

    def __init__(self) -> None:
        self._watch = ShortWatch()

    def changed(self) -> None:
        """Begin anew: what is held has changed."""
        self._watch.changed()

    def broken(self, reading: Reading, segment: Segment | None) -> str | None:
        """Say what a valid reading shows of a short, or None.

        Parameters
        ----------
        segment
            That is on; None at rest.
        """
        if segment is not None and (segment.current_A is None or segment.sines is not None):
            return None
        step = self._watch.take(
            reading.read_end_ns / 1e9, reading.voltage_V, reading.voltage_sigma_V
        )
        if step is None or not step.closes:
            return None
        return (
            f"a short: the voltage fell by {-step.step_V:.3g} V at once at a held current "
            f"({step.significance:.0f} sigma)"
        )
