"""What a person sees on the terminal while a run goes on: a live table and a bar."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from runner.format import in_unit
from runner.live_state import LiveState, Watcher


class Screen:
    """A live table and a progress bar; nothing at all when the output is piped.

    Parameters
    ----------
    console
        Where to draw; standard error, so that standard output stays for results.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task("waiting", total=1.0)
        self._live: Live | None = None

    @contextmanager
    def watching(self) -> Iterator[Watcher]:
        """Draw while the context lasts; yields what is called with each state."""
        if not self._console.is_terminal:
            yield lambda _state: None
            return
        with Live(console=self._console, refresh_per_second=8, transient=True) as live:
            self._live = live
            yield self._draw

    def stage(self, text: str) -> None:
        """Say in one line what is being done."""
        if self._console.is_terminal:
            self._console.print(f"[dim]{text}[/dim]")

    def _draw(self, state: LiveState) -> None:
        self._progress.update(
            self._task,
            description=f"step {state.step + 1}/{state.steps} {state.step_name}",
            total=state.planned_s,
            completed=min(state.elapsed_s, state.planned_s),
        )
        if self._live is not None:
            self._live.update(Group(live_table(state), self._progress))


def live_table(state: LiveState) -> Table:
    """Return the table of a live state."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    for _ in range(4):
        table.add_column()
    table.add_row("[bold]voltage", f"{state.voltage_V:.4f} V", "[bold]samples", f"{state.samples}")
    table.add_row(
        "[bold]current",
        in_unit(state.current_A, "A"),
        "[bold]frames",
        f"{state.frames} ({state.dropped} dropped)",
    )
    table.add_row(
        "[bold]charge (instrument)",
        in_unit(state.charge_C, "C"),
        "[bold]dose",
        f"{state.dose_e_m2 / 1e20:.1f} e/Å²",
    )
    table.add_row(
        "[bold]step",
        f"{state.step_elapsed_s:.0f} of at most {state.step_longest_s:.0f} s",
        "[bold]camera clock",
        f"± {in_unit(state.clock_sigma_ns / 1e9, 's')}",
    )
    if (warm_K := state.temperature_K) is not None:
        told = "[bold red]unknown" if math.isnan(warm_K) else f"{warm_K:.1f} K"
        table.add_row("[bold]temperature", told)
    for ended in state.ended:
        table.add_row(f"[dim]step {ended.index + 1} ended", f"[dim]{ended.reason}")
    if state.paused:
        table.add_row(
            f"[bold yellow]{state.paused}", "Enter or resume goes on, Ctrl-C ends the plan"
        )
    if state.moderated:
        table.add_row("[bold yellow]less current", state.moderated)
    if state.unseen:
        table.add_row("[bold yellow]waits", f"{state.unseen}; Ctrl-C ends the plan")
    if state.waits:
        table.add_row("[bold yellow]waits", "Enter goes on, Ctrl-C ends the plan")
    if state.held:
        table.add_row("[bold yellow]held", f"{state.held}: Enter goes on, Ctrl-C ends the plan")
    return table


@contextmanager
def counting(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """Draw a bar of long work on a terminal, and nothing elsewhere; yields what is told of it."""
    if not console.is_terminal:
        yield lambda _done, _all: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, all_: bar.update(task, completed=done, total=all_)
