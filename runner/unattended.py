"""A run as fast as it can, with nobody at a terminal: what waits for an operator must end."""

from runner.control import Control, Wish
from runner.live_state import LiveState, Watcher

REST_S = 10.0  # of the run: what frames and voltage do after the stop is seen, too


class Unattended:
    """Stops a plan that waits for an operator who cannot come.

    In virtual time hours at rest pass in seconds, and without a terminal nobody says that the
    plan may go on: it ends as by an operator's stop, after some rest, and says why.

    Parameters
    ----------
    control
        Of the run.
    watcher
        Who else is to be called with each state.
    """

    def __init__(self, control: Control, watcher: Watcher) -> None:
        self._control, self._watcher = control, watcher
        self._since_s: float | None = None

    def __call__(self, state: LiveState) -> None:
        """Look at the state of the run."""
        self._watcher(state)
        if not (state.held or state.waits):
            self._since_s = None
        elif self._since_s is None:
            self._since_s = state.elapsed_s
        elif state.elapsed_s - self._since_s >= REST_S:
            why = f"held by {state.held}" if state.held else "the plan waits for the operator"
            self._control.ask(
                Wish.STOP,
                why=f"{why}; with --speed max and no terminal nobody can let it go on (Enter at a "
                "terminal does, or Resume in the live view of a slower run), so it was stopped",
            )
