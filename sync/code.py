"""The code that a beam is blanked with, and whether camera and meter can read it.

A maximum-length sequence: its shift against itself is seen at once, and no disturbance
looks like it. A code whose chip is a whole number of frame periods has all its edges at one
place of the exposure cycle, perhaps all between two exposures: it is refused.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Registers whose feedback runs through all states.
_TAPS = {5: (5, 3), 6: (6, 5), 7: (7, 6), 8: (8, 6, 5, 4), 9: (9, 5), 10: (10, 7)}
MIN_FRAMES_IN_CHIP = 2.0
MIN_TAUS_IN_CHIP = 2.0  # 3 is better; below 2 the edges run into each other
MIN_SAMPLES_IN_CHIP = 2.0
SPREAD_SHARE = 0.5  # of the edges that even phases would put inside, in the worst case
PHASES = 200  # at which the worst case is looked for


class CodeRefused(ValueError):
    """A code cannot be read by the camera or the meter.

    Parameters
    ----------
    reasons
        What is wrong with it.
    proposed_chip_s
        A chip that would do.
    """

    def __init__(self, reasons: tuple[str, ...], proposed_chip_s: float) -> None:
        super().__init__("; ".join(reasons) + f"; a chip of {proposed_chip_s:.6g} s would do")
        self.reasons = reasons
        self.proposed_chip_s = proposed_chip_s


def m_sequence(order: int) -> NDArray[np.uint8]:
    """Return a maximum-length sequence of ``2**order - 1`` chips, 1 for beam on.

    It is turned so that it begins with the beam off and ends with it on: a beam that is on
    before and after makes ``2**(order - 1)`` edges of it.

    Raises
    ------
    ValueError
        An order that is not from 5 to 10.
    """
    if order not in _TAPS:
        raise ValueError(f"order {order} of a code: it must be from {min(_TAPS)} to {max(_TAPS)}")
    register = [1] * order
    chips = np.empty(2**order - 1, np.uint8)
    for i in range(len(chips)):
        chips[i] = register[-1]
        fed = 0
        for tap in _TAPS[order]:
            fed ^= register[tap - 1]
        register = [fed, *register[:-1]]
    falls = np.flatnonzero((chips == 0) & (np.roll(chips, 1) == 1))
    return np.roll(chips, -int(falls[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class BlankingCode:
    """A code to play: which sequence, how long a chip, how often.

    Parameters
    ----------
    order
        The sequence has ``2**order - 1`` chips.
    chip_ns
        Length of a chip.
    repeats
        How often the sequence is played without a break.
    """

    order: int
    chip_ns: int
    repeats: int = 1

    @property
    def length_s(self) -> float:
        """From the first edge to the end of the last chip."""
        return float((2**self.order - 1) * self.repeats * self.chip_ns / 1e9)

    def edges_ns(self, start_ns: int) -> NDArray[np.int64]:
        """Return when the beam is switched, shape (k,): off first, then on and off by turns."""
        chips = np.tile(m_sequence(self.order), self.repeats)
        before = np.concatenate([[1], chips[:-1]])
        return start_ns + np.flatnonzero(chips != before).astype(np.int64) * self.chip_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class CodePlan:
    """A code that can be read, and how well.

    Parameters
    ----------
    code
        What to play.
    edges
        Their number.
    seen_share
        Of the edges, how many fall into exposures where they begin at the worst moment.
    camera_bound_s, current_bound_s
        Smallest standard uncertainty of the delay with known edges (Cramer-Rao); NaN where
        that record is not known.
    notes
        What is allowed and could be better.
    """

    code: BlankingCode
    edges: int
    seen_share: float
    camera_bound_s: float
    current_bound_s: float
    notes: tuple[str, ...]


def camera_bound_s(frame_rate_Hz: float, duty: float, snr: float, edges: int) -> float:
    """Return the smallest sigma of a delay from frame sums, of known edges.

    Parameters
    ----------
    duty
        Share of the frame period that is exposed.
    snr
        Mean of a frame over its noise.
    """
    return float(math.sqrt(duty) / (frame_rate_Hz * snr * math.sqrt(edges)))


def current_bound_s(sample_rate_Hz: float, tau_s: float, snr: float, edges: int) -> float:
    """Return the smallest sigma of a delay from a current, of known edges.

    Good to about 15 % where the chip is much longer than ``tau_s`` and that much longer than
    the aperture.

    Parameters
    ----------
    snr
        Step of the current over the noise of a sample.
    """
    return float(math.sqrt(2 * tau_s / sample_rate_Hz) / (snr * math.sqrt(edges)))


def sigma_away_s(sigma_s: float, distance_s: float, length_s: float) -> float:
    """Return the sigma of a delay at a distance from the code's middle, with a fitted rate."""
    return sigma_s * math.sqrt(1 + 12 * (distance_s / length_s) ** 2)


def seen_share(edges_s: NDArray[np.float64], period_s: float, duty: float) -> float:
    """Return the share of edges inside the open windows of a cycle, in the worst case.

    Parameters
    ----------
    edges_s
        When the edges come; where the cycle stands at the first one is not known.
    duty
        Share of each cycle that is open.
    """
    if duty >= 1:
        return 1.0
    phase = np.mod(edges_s / period_s, 1.0)[None, :]
    begin = np.arange(PHASES)[:, None] / PHASES
    return float(np.min(np.mean(np.mod(phase + begin, 1.0) < duty, axis=1)))


def check_code(  # noqa: PLR0913 - one for each thing that the code must suit
    chip_s: float | None,
    *,
    frame_period_s: float,
    duty: float,
    sample_interval_s: float | None = None,
    aperture_s: float | None = None,
    tau_s: float = 0.0,
    rise_s: float = 0.0,
    camera_snr: float = 100.0,
    current_snr: float = 3.0,
    order: int = 7,
    repeats: int = 1,
) -> CodePlan:
    """Judge a code before it is played, or propose one.

    Parameters
    ----------
    chip_s
        Length of a chip; None to choose one.
    frame_period_s
        As measured, not as the data sheet has it.
    duty
        Share of the frame period that is exposed.
    sample_interval_s, aperture_s
        Of the current; None where there is no such record, or no time between samples.
    tau_s
        Time constant of the current's response.
    rise_s
        Of the blanker.
    camera_snr, current_snr
        What is expected: mean of a frame over its noise, step of the current over that of a
        sample. A beam that flickers by 1 % makes 100 of the first.
    order, repeats
        Of the code.

    Raises
    ------
    CodeRefused
        The chip does not suit; with all reasons and a chip that would do.
    ValueError
        Numbers that cannot be.
    """
    if not (frame_period_s > 0 and 0 < duty <= 1):
        raise ValueError(
            f"a frame period of {frame_period_s} s with a share of {duty} exposed cannot be: "
            "the period must be above 0, the share above 0 and at most 1"
        )
    needs = _Needs(
        frame_period_s=frame_period_s,
        duty=duty,
        sample_interval_s=sample_interval_s,
        aperture_s=aperture_s,
        tau_s=tau_s,
        rise_s=rise_s,
        order=order,
        repeats=repeats,
    )
    chosen_s = needs.propose() if chip_s is None else chip_s
    if reasons := needs.refusals(chosen_s):
        raise CodeRefused(reasons, needs.propose())
    code = BlankingCode(order=order, chip_ns=round(chosen_s * 1e9), repeats=repeats)
    edges = 2 ** (order - 1) * repeats
    rate_Hz = 1 / frame_period_s
    # What a meter resolves is no quicker than its aperture.
    slow_s = max(tau_s, aperture_s or sample_interval_s or 0.0)
    notes: tuple[str, ...] = ()
    if chosen_s < 3 * tau_s:
        notes = (f"a chip of at least {3 * tau_s:.4g} s would let the current settle",)
    return CodePlan(
        code=code,
        edges=edges,
        seen_share=seen_share(needs.edges_s(chosen_s), frame_period_s, duty),
        camera_bound_s=camera_bound_s(rate_Hz, duty, camera_snr, edges),
        current_bound_s=math.nan
        if sample_interval_s is None
        else current_bound_s(1 / sample_interval_s, slow_s, current_snr, edges),
        notes=notes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Needs:
    """What a chip must suit."""

    frame_period_s: float
    duty: float
    sample_interval_s: float | None
    aperture_s: float | None
    tau_s: float
    rise_s: float
    order: int
    repeats: int

    def edges_s(self, chip_s: float) -> NDArray[np.float64]:
        code = BlankingCode(order=self.order, chip_ns=round(chip_s * 1e9), repeats=self.repeats)
        return code.edges_ns(0) / 1e9

    def shortest_s(self) -> float:
        sample_s = self.sample_interval_s or 0.0
        return max(
            MIN_FRAMES_IN_CHIP * self.frame_period_s,
            MIN_TAUS_IN_CHIP * self.tau_s,
            MIN_SAMPLES_IN_CHIP * sample_s,
            4 * self.rise_s,
        )

    def refusals(self, chip_s: float) -> tuple[str, ...]:
        if not chip_s >= self.shortest_s():
            return (
                f"a chip of {chip_s:.6g} s is too short: it must last {MIN_FRAMES_IN_CHIP:g} "
                f"frame periods, {MIN_SAMPLES_IN_CHIP:g} samples, {MIN_TAUS_IN_CHIP:g} time "
                f"constants and 4 rise times, so {self.shortest_s():.6g} s",
            )
        found = []
        edges_s = self.edges_s(chip_s)
        share = seen_share(edges_s, self.frame_period_s, self.duty)
        if share < SPREAD_SHARE * self.duty:
            found.append(
                f"a chip of {chip_s:.6g} s is {chip_s / self.frame_period_s:.6g} frame periods: "
                "the edges stand at few places of the exposure cycle, and as few as "
                f"{share:.0%} of them may fall into exposures (even ones: {self.duty:.0%})"
            )
        open_share = self._seen_of_samples()
        if self.sample_interval_s is not None and open_share < 1:
            share = seen_share(edges_s, self.sample_interval_s, open_share)
            if share < SPREAD_SHARE * open_share:
                found.append(
                    f"a chip of {chip_s:.6g} s is {chip_s / self.sample_interval_s:.6g} sample "
                    f"intervals: as few as {share:.0%} of the edges may fall into apertures"
                )
        return tuple(found)

    def _seen_of_samples(self) -> float:
        """Return the share of time in which an edge leaves a trace of when it came."""
        if self.sample_interval_s is None or self.aperture_s is None:
            return 1.0
        # A response that is slow shows in the samples after the edge.
        if self.tau_s >= 0.5 * self.sample_interval_s:
            return 1.0
        return min(self.aperture_s / self.sample_interval_s, 1.0)

    def propose(self) -> float:
        """Return the first chip of round length that is refused by nobody."""
        least_s = max(4 * self.frame_period_s, 3 * self.tau_s, 3 * (self.sample_interval_s or 0.0))
        least_s = max(least_s, 1.25 * self.shortest_s())
        # A third decimal of the period, and never twice the same phase soon.
        step_s = self.frame_period_s / math.sqrt(50)
        for k in range(1, 500):
            chip_s = float(f"{least_s + k * step_s:.4g}")
            if not self.refusals(chip_s):
                return chip_s
        raise ValueError(
            f"no chip suits frames of {self.frame_period_s:.6g} s and samples of "
            f"{self.sample_interval_s} s: give a longer code (order {self.order} now)"
        )
