"""One delay of a record against a code, and what two records have between them.

Only the difference between two records means a clock: what the blanker itself is late by is
in both. Its variance is that of both records.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

from sync.code_edges import Common, Seen, columns, common_shift, difference, scatter_of

Floats = NDArray[np.float64]
ROUNDS = 25
SETTLED = 1e-3  # of a sigma: the delay moves no more
JITTER_IN_CHIP = 0.3  # the most that edges may scatter


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeFit:
    """What a record says of a code.

    Parameters
    ----------
    edges_ns
        Nominal edges, shape (k,).
    delay_s, delay_sigma_s
        By how much the record shows the code later than the nominal edges say, at the
        code's middle.
    rate, rate_sigma
        By how much faster the record's clock runs than that of the edges; 0 where not fitted.
    jitter_s
        Scatter of the edges, beside the noise of the record.
    amplitude, amplitude_sigma
        Beam on less beam off, in the record's unit.
    response_s, response_sigma_s
        Rise of the blanker for a camera, time constant of a current.
    noise
        Of a value while the beam is on, in the record's unit.
    seen_edges
        How many edges the record tells anything of.
    seen_ns
        When each edge came, on the record's clock, as likely as can be.
    place_ns
        What ``seen`` counts the shifts from, beside the nominal edges.
    seen
        All that the record says of each edge.
    """

    edges_ns: NDArray[np.int64]
    delay_s: float
    delay_sigma_s: float
    rate: float
    rate_sigma: float
    jitter_s: float
    amplitude: float
    amplitude_sigma: float
    response_s: float
    response_sigma_s: float
    noise: float
    seen_edges: int
    seen_ns: NDArray[np.int64]
    place_ns: int
    seen: Seen

    def own_shifts_s(self) -> Floats:
        """Return by how much each edge came later than all of them did, shape (k,)."""
        shift_s = (self.seen_ns - self.edges_ns - self.place_ns) / 1e9
        basis = columns((self.edges_ns - self.edges_ns[0]) / 1e9, with_rate=self.rate_sigma > 0)
        middle_s = self.delay_s - self.place_ns / 1e9
        value = np.array([middle_s, self.rate])[: basis.shape[1]]
        return np.asarray(shift_s - basis @ value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Linearised:
    """A model about a point: how its residuals change with each edge and with all else.

    Parameters
    ----------
    residual, weight
        Data less model, and 1 over variance, shape (n,).
    edges
        Change of the model with each edge, shape (n, k), per second.
    others
        Change with the other unknowns, shape (n, m).
    """

    residual: Floats
    weight: Floats
    edges: sparse.csc_matrix
    others: Floats

    def misfit(self) -> float:
        """Return chi-squared."""
        return float(np.sum(self.weight * self.residual**2))

    def seen(self, shift_s: Floats) -> tuple[Seen, Floats, Floats, Floats]:
        """Return what is known of the edges' shifts, and of the others with known edges.

        Of these their steps, covariance, and change with each edge.
        """
        root = np.sqrt(self.weight)
        left = sparse.csc_matrix(self.edges.multiply(root[:, None]))
        right = self.others * root[:, None]
        rest = self.residual * root
        scale = np.sqrt(np.maximum(np.sum(right**2, axis=0), 1e-300))
        right = right / scale
        inner = np.linalg.pinv(right.T @ right, hermitian=True)
        cross = np.asarray(left.T @ right)
        information = np.asarray((left.T @ left).todense()) - cross @ inner @ cross.T
        score = np.asarray(left.T @ rest) - cross @ (inner @ (right.T @ rest))
        seen = Seen(information=information, pull=score + information @ shift_s)
        moves = -(inner @ cross.T) / scale[:, None]
        return (
            seen,
            inner @ (right.T @ rest) / scale,
            inner / scale[:, None] / scale[None, :],
            moves,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """Where a fit ended, and its cost: minus twice the logarithm of its evidence."""

    common: Common
    seen: Seen
    jitter_s: float
    others_covariance: Floats
    cost: float


def settle(
    linearise: Callable[[Floats], Linearised],
    move: Callable[[Floats], None],
    edges_s: Floats,
    *,
    start_s: Floats,
    chip_s: float,
    jitter_s: float | None,
    with_rate: bool,
) -> Settled:
    """Fit edges and all else by turns until the delay stands still.

    Parameters
    ----------
    linearise
        The model at some shifts of the edges.
    move
        Takes the steps of the unknowns that are no edges.
    start_s
        First shifts.
    jitter_s
        Scatter of the edges; None to find it.
    """
    basis = columns(edges_s, with_rate=with_rate)

    def look(at_s: Floats) -> tuple[Settled, Floats]:
        here = linearise(at_s)
        seen, steps, covariance, moves = here.seen(at_s)
        scatter_s = (
            scatter_of(seen, basis, JITTER_IN_CHIP * chip_s) if jitter_s is None else jitter_s
        )
        common = common_shift(seen, basis, scatter_s)
        found = Settled(
            common=common,
            seen=seen,
            jitter_s=scatter_s,
            others_covariance=covariance + moves @ common.shift_covariance @ moves.T,
            cost=here.misfit() + _cost_of(common, seen, basis, scatter_s),
        )
        return found, steps

    shift_s = start_s
    found, steps = look(shift_s)
    for turn in range(ROUNDS):
        before = found.common.value[0]
        # A far step in the first turns would leave the code's own place.
        shift_s = shift_s + np.clip(found.common.shift_s - shift_s, -chip_s / 4, chip_s / 4)
        move(steps)
        found, steps = look(shift_s)
        sigma_s = math.sqrt(found.common.covariance[0, 0])
        if turn >= 2 and abs(found.common.value[0] - before) < SETTLED * sigma_s:
            break
    return found


def _cost_of(common: Common, seen: Seen, basis: Floats, jitter_s: float) -> float:
    """Return what edges cost that are free to scatter."""
    if jitter_s == 0:
        return 0.0
    apart = common.shift_s - basis @ common.value
    room = np.linalg.slogdet(np.eye(len(apart)) + jitter_s**2 * seen.information)[1]
    return float(np.sum(apart**2) / jitter_s**2 + room)


def result_of(
    settled: Settled,
    edges_ns: NDArray[np.int64],
    place_ns: int,
    *,
    with_rate: bool,
    amplitude: tuple[float, float],
    response: tuple[float, float],
    noise: float,
    apart_s: Floats | None = None,
) -> CodeFit:
    """Put a fit into words; ``apart_s`` is what its edges had been moved by beforehand."""
    seen, moved_s = settled.seen, settled.common.shift_s
    if apart_s is not None:
        seen = Seen(information=seen.information, pull=seen.pull + seen.information @ apart_s)
        moved_s = moved_s + apart_s
    value, covariance = settled.common.value, settled.common.covariance
    return CodeFit(
        edges_ns=edges_ns,
        delay_s=place_ns / 1e9 + float(value[0]),
        delay_sigma_s=math.sqrt(covariance[0, 0]),
        rate=float(value[1]) if with_rate else 0.0,
        rate_sigma=math.sqrt(covariance[1, 1]) if with_rate else 0.0,
        jitter_s=settled.jitter_s,
        amplitude=amplitude[0],
        amplitude_sigma=amplitude[1],
        response_s=response[0],
        response_sigma_s=response[1],
        noise=noise,
        seen_edges=len(settled.seen.free()[0]),
        seen_ns=edges_ns + place_ns + np.round(moved_s * 1e9).astype(np.int64),
        place_ns=place_ns,
        seen=seen,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeDelay:
    """By how much a code comes later in one record than in another.

    Parameters
    ----------
    delay_s, sigma_s
        At the code's middle.
    rate, rate_sigma
        Change of the delay with time; 0 where not fitted.
    jitter_s
        Scatter of the edges that both records share.
    misfit
        Chi-squared in a degree of freedom of the edges that both have seen; above 1 the
        uncertainty is widened by it.
    middle_ns, length_s
        Of the code, nominal.
    """

    delay_s: float
    sigma_s: float
    rate: float
    rate_sigma: float
    jitter_s: float
    misfit: float
    middle_ns: int
    length_s: float


def delay_between(camera: CodeFit, current: CodeFit) -> CodeDelay:
    """Return by how much the camera shows the same edges later than the current.

    Raises
    ------
    ValueError
        The fits are of different codes.
    """
    if not np.array_equal(camera.edges_ns, current.edges_ns):
        raise ValueError("the fits are of different codes: fit both records to the same edges")
    edges_s = (camera.edges_ns - camera.edges_ns[0]) / 1e9
    with_rate = camera.rate_sigma > 0 or current.rate_sigma > 0
    # The record that sees edges best tells how they scatter.
    jitter_s = min(camera, current, key=_edge_sigma).jitter_s
    value, covariance, misfit = difference(
        camera.seen, current.seen, columns(edges_s, with_rate=with_rate), jitter_s
    )
    return CodeDelay(
        delay_s=(camera.place_ns - current.place_ns) / 1e9 + float(value[0]),
        sigma_s=math.sqrt(covariance[0, 0]),
        rate=float(value[1]) if with_rate else 0.0,
        rate_sigma=math.sqrt(covariance[1, 1]) if with_rate else 0.0,
        jitter_s=jitter_s,
        misfit=misfit,
        middle_ns=int(camera.edges_ns[0] + (camera.edges_ns[-1] - camera.edges_ns[0]) // 2),
        length_s=float(edges_s[-1]),
    )


def _edge_sigma(fit: CodeFit) -> float:
    return float(np.median(fit.seen.free()[2]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Two delays that should be the same.

    Parameters
    ----------
    difference_s, sigma_s
        The code's less the network's, and its standard uncertainty.
    bound_s
        What asymmetric ways could hide from the network.
    sigmas, p
        How far beyond the bound the difference lies, and how likely chance takes it there.
    agrees
        True where chance and asymmetry suffice to explain it.
    text
        One sentence for a report.
    """

    difference_s: float
    sigma_s: float
    bound_s: float
    sigmas: float
    p: float
    agrees: bool
    text: str


def compare_delays(
    coded: CodeDelay,
    *,
    network_s: float = 0.0,
    network_sigma_s: float,
    network_bound_s: float = 0.0,
    level: float = 0.0027,
) -> Agreement:
    """Compare a coded delay with that of the network's clock fits.

    Parameters
    ----------
    network_s
        Delay that the network's fits leave: 0 where the records were brought to the host
        clock by them.
    network_sigma_s, network_bound_s
        Its standard uncertainty, and the hard bound (half the round trips) beside it.
    level
        Below this chance they disagree.
    """
    away_s = coded.delay_s - network_s
    sigma_s = math.hypot(coded.sigma_s, network_sigma_s)
    beyond_s = max(abs(away_s) - network_bound_s, 0.0)
    sigmas = beyond_s / sigma_s if sigma_s > 0 else (math.inf if beyond_s > 0 else 0.0)
    p = float(2 * special.ndtr(-sigmas))
    agrees = p >= level
    inside = abs(away_s) / sigma_s if sigma_s > 0 else math.inf
    if not agrees:
        why = (
            f"disagree by {away_s:.3g} s, {sigmas:.1f} sigma beyond what asymmetry can hide: one "
            "record is late by a delay that its clock does not know"
        )
    elif inside > 3:
        why = f"differ by {away_s:.3g} s, {inside:.1f} sigma, which asymmetric ways can explain"
    else:
        why = f"agree within {inside:.1f} sigma ({away_s:.3g} s)"
    return Agreement(
        difference_s=away_s,
        sigma_s=sigma_s,
        bound_s=network_bound_s,
        sigmas=sigmas,
        p=p,
        agrees=agrees,
        text=f"code and network {why}",
    )
