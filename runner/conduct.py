"""One experiment from start to report: opens everything, and leaves the cell safe."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from potentiostat.protocol import SafeState
from potentiostat.records import Identity
from runner.acquisition import Acquisition
from runner.analysis import analyse_session
from runner.audience import NOBODY, Audience
from runner.blanking import beside_the_run
from runner.cell import GuardedCell, InstrumentUnavailable
from runner.check import refuse_unfit
from runner.config import MOCK
from runner.contact import ContactRecord
from runner.continuing import Continuation, load_continuation
from runner.control import Control, Wish
from runner.experiment import Experiment
from runner.guardian_settings import guardian_settings, holder_terms
from runner.header import CAMERA, session_header
from runner.holder_record import HolderRecord, load_holder
from runner.lab import Lab, open_lab
from runner.live_state import LiveState, Watcher
from runner.opening import bus_address, enter_bus, enter_camera, enter_microscope, enter_tracking
from runner.outputs import Outputs
from runner.plan import Ending, Plan
from runner.preparing import Stage, load_holder_with_cell, look_for_cell, note_before, put_contact
from runner.remote_run import FINISH_S, HURRY_S, find_node, node_of_run
from runner.remote_times import put_remote
from runner.report import write_report
from runner.summary import RunSummary, summarise
from session.editor import SessionEditor
from session.recorder import Recorder


@dataclass(frozen=True, slots=True, kw_only=True)
class _People:
    """Who commands a run, and who is told and shown what."""

    control: Control
    watcher: Watcher
    stage: Stage
    audience: Audience


def _watch_nothing(_state: LiveState) -> None:
    """Take no notice."""


def _say_nothing(_text: str) -> None:
    """Say nothing."""


def _show_nobody(_topic: str, _message: object) -> None:
    """Show nobody anything."""


async def run(  # noqa: PLR0913 - one argument for each thing that is told
    experiment: Experiment,
    *,
    output: str | Path,
    report: str | Path | None = None,
    continues: str | Path | None = None,
    overwrite: bool = False,
    speed: float = 1.0,
    control: Control | None = None,
    watcher: Watcher = _watch_nothing,
    stage: Stage = _say_nothing,
    audience: Audience = NOBODY,
) -> RunSummary:
    """Run an experiment and return what came of it.

    Parameters
    ----------
    experiment
        Checked before anything is opened.
    output
        Session file to write; simulated hardware leaves its truth beside it.
    report
        Page to write at the end, or None.
    continues
        Session of a run that died, which this one goes on with; None to begin.
    overwrite
        Replace files that exist; they stay until the run can begin.
    speed
        Only for simulated hardware: 1 for real time, N for N times as fast,
        ``math.inf`` for as fast as it can.
    control
        For an operator's stop, abort and halt.
    watcher
        Called after each block of readings with the live state.
    stage
        Told what is being done.
    audience
        Shown readings, frames and events as they come, such as a live view.

    Raises
    ------
    ExperimentError
        The experiment cannot be run as it stands; nothing was opened or written.
    OutputRefused
        An output exists and ``overwrite`` is False.
    CannotContinue
        What ``continues`` names cannot be gone on with. No step was begun.
    LabError, InstrumentUnavailable, cameras.errors.CameraError
        Equipment cannot be had or was lost. The cell is in its safe state.
    """
    # Files are touched in a thread: nothing may hold up the loop that guards a cell.
    await asyncio.to_thread(refuse_unfit, experiment)
    outputs = await asyncio.to_thread(
        Outputs.claim, session=Path(output), report=report, overwrite=overwrite
    )
    before = None
    if continues is not None:
        stage(f"looking where {continues} died")
        before = await asyncio.to_thread(_load_before, experiment, outputs, Path(continues))
        for text in before.doubts:
            stage(f"warning: {text}")
    holder = await asyncio.to_thread(load_holder, experiment)
    if holder is not None and (doubt := holder.doubt(datetime.now(UTC))) is not None:
        stage(f"warning: {doubt}")
    if experiment.camera is not None and experiment.camera.is_node:
        stage("looking for the camera node")
        await find_node(bus_address(experiment, outputs), experiment.camera)
    async with open_lab(experiment, speed=speed, truth_path=outputs.truth, holder_open=True) as lab:
        if experiment.potentiostat.resource == MOCK:
            holder = await load_holder_with_cell(experiment, lab, holder, stage)
        contact = await look_for_cell(experiment, lab, stage)
        stage("running the plan")
        ending, cell = await _play(
            experiment,
            lab,
            outputs,
            (holder, contact),
            people=_People(
                control=control or Control(), watcher=watcher, stage=stage, audience=audience
            ),
            before=before,
        )
        left_ns = lab.clock.now_ns()
    stage("fitting the time base, tracking, correlating")
    await asyncio.to_thread(_note_left, outputs.session, left_ns, cell.left_in)
    if contact is not None:
        await asyncio.to_thread(put_contact, outputs.session, contact)
    if experiment.camera is not None and experiment.camera.is_node:
        name = experiment.camera.options.node
        frames = await asyncio.to_thread(put_remote, outputs.session, name)
        stage(
            f"{len(frames)} frames of {name}, whose computer keeps {', '.join(frames.recordings)}"
        )
    await asyncio.to_thread(analyse_session, outputs.session, holder)
    if outputs.report is not None:
        stage("writing the report")
        await asyncio.to_thread(write_report, outputs.session, outputs.report)
    return await asyncio.to_thread(
        summarise, outputs.session, exit_code=ending.code, left_in=cell.left_in
    )


def _load_before(experiment: Experiment, outputs: Outputs, path: Path) -> Continuation:
    outputs.keep(path)
    return load_continuation(experiment, path)


def _note_left(session: Path, t_ns: int, state: SafeState | None) -> None:
    """Say in the file where the cell was left: the recorder ends before the cell does."""
    left = "not confirmed" if state is None else state.value
    with SessionEditor.open(session) as editor:
        editor.add_event(t_ns, "cell_left", "guardian", f"cell left in: {left}", {"state": left})


def _refuse_other_model(experiment: Experiment, found: Identity) -> None:
    """Raise InstrumentUnavailable where the plan was checked for another model."""
    named = experiment.potentiostat.model
    if named is not None and named != found.model:
        raise InstrumentUnavailable(
            f"{experiment.potentiostat.resource} is a {found.model}, and the plan is for a "
            f"{named}: correct [potentiostat] model, and check the plan again"
        )


async def _play(
    experiment: Experiment,
    lab: Lab,
    outputs: Outputs,
    found: tuple[HolderRecord | None, ContactRecord | None],
    people: _People,
    before: Continuation | None,
) -> tuple[Ending, GuardedCell]:
    """Open everything in the order in which it must be closed, and play the plan."""
    terms = await asyncio.to_thread(holder_terms, experiment, found[0])
    settings = guardian_settings(experiment, lab, holder=terms)
    if before is not None:
        settings = replace(settings, carried=before.carried)
    cell = GuardedCell(settings)
    # The cell is outermost: whatever fails inside, it is made safe last and always.
    async with cell, AsyncExitStack() as stack:
        camera = await enter_camera(lab, stack)
        microscope = await enter_microscope(lab, stack)
        connected = cell.get_connected()
        _refuse_other_model(experiment, connected.identity)
        if before is not None:
            before.refuse_other_instrument(connected.identity)
        plan = Plan(experiment.steps, range_A=experiment.range_A(connected.ranges))
        header = await asyncio.to_thread(
            session_header,
            experiment,
            connected=connected,
            camera=None if camera is None else camera.info,
            simulated=lab.simulated,
            start_time=datetime.now(UTC),
            host_start_ns=lab.clock.now_ns(),
        )
        await asyncio.to_thread(outputs.clear)
        recorder = await stack.enter_async_context(
            Recorder(
                outputs.session,
                header,
                on_event=people.audience.event,
                on_trouble=lambda text: people.stage(f"warning: {text}"),
            )
        )
        refused = await note_before(recorder, lab.clock.now_ns(), *found)
        feed = await enter_bus(experiment, outputs, people.control, stack)
        tracking = await enter_tracking(experiment, lab, camera, stack)
        acquisition = Acquisition(
            experiment,
            cell=cell,
            camera=camera,
            recorder=recorder,
            plan=plan,
            clock=lab.clock,
            control=people.control,
            watcher=people.watcher,
            show=_show_nobody if feed is None else feed.put,
            before=before,
            audience=people.audience,
            tracking=tracking,
            holder=terms,
        )
        async with beside_the_run(
            microscope,
            experiment.blanking,
            recorder=recorder,
            clock=lab.clock,
            measured=acquisition.rhythm.rhythm,
        ):
            ending = refused or await _follow(
                experiment,
                acquisition,
                cell,
                recorder=recorder,
                outputs=outputs,
                lab=lab,
                control=people.control,
            )
        cell.reason = ending.reason
        if (filming := acquisition.filming) is not None:
            ring = recorder.ring_counters(CAMERA)
            await recorder.queue_counters(CAMERA, asdict(ring))
            await recorder.queue_counters("previews", filming.previews.counters)
        if feed is not None:
            await recorder.queue_counters("bus", asdict(feed.counters))
        if tracking is not None:
            await recorder.queue_counters("tracking", asdict(tracking.counters))
        await recorder.finish(ending.reason, datetime.now(UTC).isoformat())
    return ending, cell


async def _follow(
    experiment: Experiment,
    acquisition: Acquisition,
    cell: GuardedCell,
    *,
    recorder: Recorder,
    outputs: Outputs,
    lab: Lab,
    control: Control,
) -> Ending:
    """Play the plan, while a camera node films it where the experiment names one."""
    if experiment.camera is None or not experiment.camera.is_node:
        return await _safe_after(acquisition, cell)
    async with node_of_run(
        bus_address(experiment, outputs),
        experiment.camera,
        recorder=recorder,
        now_ns=lab.clock.now_ns,
    ) as node:
        await node.arm(acquisition.see_remote)
        ending = await _safe_after(acquisition, cell)
        await node.finish(HURRY_S if control.wish >= Wish.ABORT else FINISH_S)
    return ending


async def _safe_after(acquisition: Acquisition, cell: GuardedCell) -> Ending:
    """Play the plan; the cell is made safe at once, before a network or a disk is waited for."""
    try:
        ending = await acquisition.run()
        cell.reason = ending.reason
    except BaseException as error:
        cell.reason = f"{type(error).__name__}: {error}"
        raise
    finally:
        await cell.close()
    return ending
