"""The table of supported models: what they reach, and what they do to a cell."""

from dataclasses import dataclass

from rich.table import Table

from potentiostat.records import RangeSpec
from potentiostat.registry import potentiostat_class, potentiostat_names
from potentiostat.safety import hazards_of
from potentiostat.thermometer import ThermometerSpec
from runner.format import in_unit


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownInstrument:
    """One driver with its model's ranges and hazards."""

    driver: str
    model: str
    ranges: tuple[RangeSpec, ...]
    input_ohm: float
    unconfirmed: str
    largest_block: int
    trigger_lines: tuple[int, ...]
    thermometer: ThermometerSpec | None
    off_states: tuple[str, ...]
    rest_states: tuple[str, ...]
    source: str


def known_instruments() -> tuple[KnownInstrument, ...]:
    """Return all registered drivers, by name."""
    known = []
    for name in potentiostat_names():
        driver = potentiostat_class(name)
        row = hazards_of(driver.model)
        known.append(
            KnownInstrument(
                driver=name,
                model=driver.model,
                ranges=driver.ranges,
                input_ohm=driver.input_ohm,
                unconfirmed=driver.unconfirmed,
                largest_block=driver.largest_block,
                trigger_lines=driver.trigger_lines,
                thermometer=driver.thermometer,
                off_states=()
                if row is None
                else tuple(
                    f"{s.name}: {s.what}{' (harms a cell)' if s.biases_cell else ''}"
                    for s in row.off_states
                ),
                rest_states=tuple(state.value for state in driver.off_states),
                source="" if row is None else row.source,
            )
        )
    return tuple(known)


def render_known(known: tuple[KnownInstrument, ...]) -> Table:
    """Return the table for a terminal."""
    table = Table(title="instruments", title_justify="left", show_lines=True)
    for name in ("driver", "current ranges", "when off", "rests in"):
        table.add_column(name)
    for row in known:
        smallest, largest = row.ranges[0], row.ranges[-1]
        table.add_row(
            f"{row.driver}\n({row.model})\n[dim]{_modes(row)}[/dim]",
            f"{in_unit(smallest.full_scale_A, 'A')} to {in_unit(largest.full_scale_A, 'A')}\n"
            f"smallest: {100 * smallest.gain_ratio:g} % + {in_unit(smallest.offset_A, 'A')}\n"
            f"voltmeter: {in_unit(row.input_ohm, 'ohm')} or more"
            + (f"\n[dim]not yet confirmed: {row.unconfirmed}[/dim]" if row.unconfirmed else ""),
            "\n".join(row.off_states) + f"\n[dim]{row.source}[/dim]",
            ", ".join(row.rest_states),
        )
    return table


def _modes(row: KnownInstrument) -> str:
    """Tell how its readings may come, and whether it measures a temperature."""
    lines, spec = row.trigger_lines, row.thermometer
    warm = "no thermometer"
    if spec is not None:
        warm = f"{spec.sensor}, {spec.low_K:g} to {spec.high_K:g} K"
    return (
        (f"blocks of {row.largest_block}" if row.largest_block > 1 else "one by one")
        + (f", lines {lines[0]} to {lines[-1]}" if lines else ", no trigger lines")
        + f"\n{warm}"
    )
