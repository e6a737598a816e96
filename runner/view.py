"""The live view of a run: a page on loopback, for whoever has its address."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from runner.audience import Audience, Shielded
from runner.control import Control
from runner.errors import message_of
from runner.experiment import Experiment


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """An open view.

    Parameters
    ----------
    address, look_address
        To command, and only to look; each holds a secret.
    audience
        For `runner.conduct.run`.
    stage
        Told what is being done.
    end
        Told how it ended, last.
    """

    address: str
    look_address: str
    audience: Audience
    stage: Callable[[str], None]
    end: Callable[[str], None]

    @property
    def told(self) -> str:
        """What a person is told of it."""
        return f"live view: {self.address}\n  to look only: {self.look_address}"


@asynccontextmanager
async def open_view(
    experiment: Experiment, control: Control, *, port: int = 0, say: Callable[[str], None]
) -> AsyncIterator[View]:
    """Serve the view of a run while the context lasts.

    Parameters
    ----------
    port
        On loopback; 0 for a free one.
    say
        Told why the view shows no more, should it fail: the run goes on.

    Raises
    ------
    ViewError
        The port cannot be had; nothing was opened.
    """
    # The web framework takes a while to load, and a run without a view needs none of it.
    from runner.view_server import serve  # noqa: PLC0415
    from runner.view_state import ViewState  # noqa: PLC0415

    state = ViewState(experiment.title, control, facts=facts(experiment))
    async with serve(state, control, port=port, say=say) as (address, look_address):
        try:
            yield View(
                address=address,
                look_address=look_address,
                audience=Shielded(state, say),
                stage=state.stage,
                end=state.end,
            )
        except BaseException as error:
            state.end(f"error: {message_of(error)}")
            raise


def facts(experiment: Experiment) -> dict[str, object]:
    """Return what a page is told once: limits, and what the camera sees."""
    envelope, camera = experiment.envelope, experiment.camera
    simulated = experiment.potentiostat.resource == "mock"
    dose = experiment.dose_limit_e_m2
    return {
        "simulated": simulated,
        "driver": experiment.potentiostat.driver,
        "camera": None if camera is None else camera.driver,
        "is_remote": camera is not None and camera.is_node,
        "pixel_m": None if camera is None else camera.pixel_size_m,
        "voltage_min_V": envelope.voltage_min_V,
        "voltage_max_V": envelope.voltage_max_V,
        "current_max_A": envelope.current_max_A,
        "charge_max_C": envelope.charge_max_C,
        "dose_max_e_A2": None if dose is None else dose / 1e20,
    }
