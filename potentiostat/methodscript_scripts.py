"""The scripts that a cell is held with: each opens the cell first, and again at its end.

A script that holds a level does so in turns. A turn is a measurement loop of one lease, which
the host ends early (``Y``) to renew it; the next turn begins without a break. The instrument
opens the cell by itself

* when a turn comes to its end: the host has been silent for the whole lease;
* when a reading is beyond the clamp or outside the cell's window;
* before anything is put on the cell, when its rest voltage is not in the window.

The last package of a script tells which it was (`Why`). No voltage is put on a cell but the
one that it has: the instrument measures it, takes it as its level, and only then switches on.
"""

from dataclasses import dataclass
from enum import IntEnum

from potentiostat.methodscript import write_number
from potentiostat.protocol import Setpoint

STARTED = "go"  # said when the timer starts
POTENTIOSTAT, GALVANOSTAT = 2, 6  # modes; 2 is for slow and small signals
BANDWIDTH_RATIO = 5.85  # over the rate of readings, as in the maker's battery script
LONGEST_REST_S = 1e6
CLAMPED_READINGS = 3  # of a current: the first after a step charges the leads


class Why(IntEnum):
    """Why a script has opened the cell."""

    LIMIT = 1
    LEASE = 2
    WINDOW = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What all scripts of a connection have in common.

    Parameters
    ----------
    interval_s
        Between readings.
    lease_s
        For which a level is held without a sign of the host.
    reach_V
        Lowest and highest voltage of the model.
    window_V
        Of the cell; None where none is attached.
    mains_Hz
        For models that fit their integration to the mains, else None.
    """

    interval_s: float
    lease_s: float
    reach_V: tuple[float, float]
    window_V: tuple[float, float] | None = None
    mains_Hz: float | None = None


def open_script() -> str:
    """Return a script that opens the cell and ends."""
    return _complete([])


def rest_script(terms: Terms) -> str:
    """Return a script that opens the cell and measures its voltage."""
    return _complete(
        [
            *_declare("t", "p"),
            *_mode(terms, POTENTIOSTAT),
            *_reading_of_voltage(terms),
            *_begin(),
            *_open_circuit(terms, LONGEST_REST_S),
        ]
    )


def hold_script(terms: Terms, setpoint: Setpoint, *, step: float = 0.0) -> str:
    """Return a script that holds a level.

    Parameters
    ----------
    step
        Added to the level, in its unit, each time the host ends a turn.
    """
    in_window, afterwards = _guarded(terms)
    return _complete(
        [
            *_declare("t", "p", "c", "s", "b", "a", "n", "w", "k"),
            f"store_var s {write_number(setpoint.level)} ja",
            "store_var n 0i aa",
            "store_var k 0i aa",
            f"store_var w {Why.WINDOW:d}i aa",
            *_mode(terms, POTENTIOSTAT),
            *_reading_of_voltage(terms),
            *_begin(),
            *_open_circuit(terms, terms.interval_s),
            *in_window,
            *_switch_on(terms, setpoint),
            "store_var w 0i aa",
            "loop k < 1i",
            *_turn(terms, setpoint, step),
            "endloop",
            "cell_off",
            *afterwards,
            *_package("w"),
        ]
    )


def _complete(body: list[str]) -> str:
    """Return a whole script; there is no other way to one."""
    return "\n".join(["e", "cell_off", *body, "on_finished:", "cell_off"])


def _declare(*names: str) -> list[str]:
    return [f"var {name}" for name in names]


def _mode(terms: Terms, mode: int) -> list[str]:
    """Return how a mode is set; the bandwidth must follow it."""
    lines = [
        "set_pgstat_chan 0",
        f"set_pgstat_mode {mode}",
        f"set_max_bandwidth {write_number(BANDWIDTH_RATIO / terms.interval_s)}",
    ]
    if terms.mains_Hz is not None:
        lines.append(f"set_acquisition_frac_autoadjust {terms.mains_Hz:.0f}")
    return lines


def _locked(kind: str, full_scale: float) -> list[str]:
    number = write_number(full_scale)
    return [f"set_range {kind} {number}", f"set_autoranging {kind} {number} {number}"]


def _reading_of_voltage(terms: Terms) -> list[str]:
    return _locked("ab", max(abs(volts) for volts in terms.reach_V))


def _begin() -> list[str]:
    return ["timer_start", f'send_string "{STARTED}"']


def _package(*names: str) -> list[str]:
    return ["pck_start", *(f"pck_add {name}" for name in names), "pck_end"]


def _open_circuit(terms: Terms, for_s: float) -> list[str]:
    return [
        f"meas_loop_ocp p {write_number(terms.interval_s)} {write_number(for_s)}",
        "timer_get t",
        *_package("t", "p"),
        "endloop",
    ]


def _guarded(terms: Terms) -> tuple[list[str], list[str]]:
    """Return what stands around all that is put on a cell.

    A script that is cut short on its way has a block without an end, and is not obeyed.
    """
    if terms.window_V is None:
        return [], []
    low, high = map(write_number, terms.window_V)
    return [f"if p > {low}", f"if p < {high}"], ["endif", "endif"]


def _switch_on(terms: Terms, setpoint: Setpoint) -> list[str]:
    if setpoint.mode == "current":
        return [
            *_mode(terms, GALVANOSTAT),
            *_reading_of_voltage(terms),
            *_locked("db", setpoint.range_A),
            "set_i 0",
            "cell_on",
        ]
    low, high = map(write_number, terms.window_V or terms.reach_V)
    return [
        f"set_range_minmax da {low} {high}",
        *_locked("ba", setpoint.range_A),
        "set_e p" if terms.window_V is not None else "set_e s",
        "cell_on",
    ]


def _turn(terms: Terms, setpoint: Setpoint, step: float) -> list[str]:
    interval, lease = write_number(terms.interval_s), write_number(terms.lease_s)
    loop = "meas_loop_cp" if setpoint.mode == "current" else "meas_loop_ca"
    overdue = write_number(terms.lease_s - 0.5 * terms.interval_s)
    return [
        "timer_get b",
        f"{loop} p c s {interval} {lease}",
        "timer_get t",
        *_package("t", "p", "c"),
        *_limits(terms, setpoint),
        "endloop",
        f"if w == {Why.LIMIT:d}i",
        "breakloop",
        "endif",
        "timer_get t",
        "sub_var t b",
        f"if t > {overdue}",
        f"store_var w {Why.LEASE:d}i aa",
        "breakloop",
        "endif",
        f"add_var s {write_number(step)}",
    ]


def _limits(terms: Terms, setpoint: Setpoint) -> list[str]:
    leave = [f"store_var w {Why.LIMIT:d}i aa", "breakloop"]
    clamp = write_number(setpoint.clamp)
    if setpoint.mode == "current":
        low = write_number(-setpoint.clamp if terms.window_V is None else terms.window_V[0])
        return [f"if p > {clamp}", *leave, "endif", f"if p < {low}", *leave, "endif"]
    return [
        "copy_var c a",
        "if a < 0",
        "mul_var a -1",
        "endif",
        f"if a > {clamp}",
        "add_var n 1i",
        "else",
        "store_var n 0i aa",
        "endif",
        f"if n >= {CLAMPED_READINGS}i",
        *leave,
        "endif",
    ]
