"""What 'output off' does to a cell, by model: a table, and the questions it answers."""

from dataclasses import dataclass

from potentiostat.protocol import SafeState


@dataclass(frozen=True, slots=True, kw_only=True)
class OffState:
    """One way in which a model can be off.

    Parameters
    ----------
    name
        As the instrument calls it.
    what
        What stands at the terminals then.
    biases_cell
        True when it drives or shorts a cell; true when in doubt.
    """

    name: str
    what: str
    biases_cell: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Hazards:
    """Off states of a model, where it may rest, and where this was read."""

    model: str
    default: str
    off_states: tuple[OffState, ...]
    rest_states: tuple[SafeState, ...]
    source: str


_ZERO = OffState(name="ZERO", what="0 V, the programmed limit kept", biases_cell=True)

HAZARDS = (
    Hazards(
        model="6430",
        default="NORM",
        off_states=(
            OffState(
                name="NORM",
                what="0 V, limit 0.5 % of the current range",
                biases_cell=True,
            ),
            _ZERO,
            OffState(
                name="GUAR",
                what="0 A, limit 0.5 % of the voltage range",
                biases_cell=True,
            ),
        ),
        rest_states=(SafeState.S1,),
        source="6430 instruction manual p. 17-53: NORMal, ZERO, GUARd, no high impedance",
    ),
    Hazards(
        model="2400",
        default="NORM",
        off_states=(
            OffState(
                name="NORM",
                what="0 V, limit 0.5 % of the current range",
                biases_cell=True,
            ),
            _ZERO,
            OffState(
                name="GUAR",
                what="0 A, limit 0.5 % of the voltage range",
                biases_cell=True,
            ),
            OffState(name="HIMP", what="relay open", biases_cell=False),
        ),
        rest_states=(SafeState.S1, SafeState.S2),
        source="2400 user's manual pp. 13-9, 18-59",
    ),
    Hazards(
        model="2450",
        default="NORM",
        off_states=(
            OffState(name="NORM", what="0 V, limit 10 % of the range, 2-wire", biases_cell=True),
            _ZERO,
            OffState(name="GUAR", what="0 A, limit 10 % of the range", biases_cell=True),
            OffState(
                name="HIMP", what="relay open; set for each source function", biases_cell=False
            ),
        ),
        rest_states=(SafeState.S1, SafeState.S2),
        source="2450 reference manual p. 2-84; 2461 reference manual p. 4-17",
    ),
    Hazards(
        model="2636B",
        default="NORM",
        off_states=(
            OffState(name="NORM", what="0 V, limit 1 mA unless set otherwise", biases_cell=True),
            _ZERO,
            OffState(name="HIGH_Z", what="relay open; forgotten on power-up", biases_cell=False),
        ),
        rest_states=(SafeState.S1, SafeState.S2),
        source="2600B reference manual 2600BS-901-01, smua.source.offmode",
    ),
    Hazards(
        model="B2900",
        default="NORM",
        off_states=(
            OffState(name="NORM", what="0 V at 100 uA, then relay open", biases_cell=True),
            OffState(name="ZERO", what="0 V at 100 uA", biases_cell=True),
            OffState(
                name="HIZ",
                what="relay open; but over-voltage, over-temperature and interlock go by 0 V",
                biases_cell=False,
            ),
        ),
        rest_states=(SafeState.S1, SafeState.S2),
        source="B2900 user's guide p. 6-13; B2961A command reference p. 4-67",
    ),
    Hazards(
        model="MethodSCRIPT",
        default="CELL_OFF",
        off_states=(
            OffState(name="CELL_OFF", what="cell open", biases_cell=False),
            OffState(
                name="ERROR",
                what="a script that fails stops at once and leaves the cell as it is, on",
                biases_cell=True,
            ),
        ),
        rest_states=(SafeState.S1, SafeState.S2),
        source="MethodSCRIPT manual 1.8, cell_off and chapter 10.1",
    ),
    Hazards(
        model="B298x",
        default="NORM",
        off_states=(
            OffState(name="NORM", what="0 V, then relay open", biases_cell=True),
            OffState(
                name="ZERO", what="0 V in the present range, through the ammeter", biases_cell=True
            ),
            OffState(
                name="HIZ",
                what="relay open; in the 20 V range of the source only",
                biases_cell=False,
            ),
        ),
        # S1 is no source of 0 A here but an input that is open: the voltmeter in series.
        rest_states=(SafeState.S1, SafeState.S2),
        source="off states as PyMeasure's driver of the family tells them",
    ),
)


def hazards_of(model: str) -> Hazards | None:
    """Return the table's row of a model, or None for one that it does not know."""
    return next((row for row in HAZARDS if row.model == model), None)


def biases_cell_when_off(model: str, off_state: str) -> bool:
    """Tell whether an off state drives or shorts a cell; true when in doubt."""
    row = hazards_of(model)
    if row is None:
        return True
    known = {state.name[:4]: state.biases_cell for state in row.off_states}
    return known.get(off_state.upper()[:4], True)
