"""One experiment from start to report: opens everything, and leaves the cell safe."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cameras.microscope import Microscope, microscope_class
from cameras.protocol import FrameSource
from potentiostat.protocol import NO_LINES, SafeState
from potentiostat.records import Identity
from potentiostat.registry import potentiostat_class
from runner.acquisition import Acquisition
from runner.analysis import analyse_session
from runner.audience import NOBODY, Audience
from runner.blanking import beside_the_run
from runner.bus_address import BusAddress
from runner.bus_commands import Command
from runner.bus_feed import BusFeed
from runner.calibrate import measure_holder
from runner.cell import GuardedCell, InstrumentUnavailable
from runner.check import refuse_unfit
from runner.config import MOCK
from runner.contact import ContactRecord, find_contact
from runner.continuing import Continuation, load_continuation
from runner.control import Control, Wish
from runner.devices import open_camera
from runner.experiment import Experiment
from runner.header import CAMERA, session_header
from runner.holder_record import HolderRecord, load_holder
from runner.lab import Lab, open_lab
from runner.live_state import LiveState, Watcher
from runner.live_tracking import LiveTracking, scene_of
from runner.messages import LEASE_S, GuardianSettings, HolderTerms
from runner.outputs import Outputs
from runner.plan import Ending, ExitCode, Plan
from runner.remote_run import FINISH_S, HURRY_S, find_node, node_of_run
from runner.remote_times import put_remote
from runner.report import write_report
from runner.summary import RunSummary, summarise
from session.editor import SessionEditor
from session.recorder import Recorder

VIRTUAL_LEASE_S = 30.0  # real seconds; in virtual time a busy machine is no danger

Stage = Callable[[str], None]
"""Told in one line what is being done; must return at once."""


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
        await find_node(_bus_address(experiment, outputs), experiment.camera)
    async with open_lab(experiment, speed=speed, truth_path=outputs.truth, holder_open=True) as lab:
        if experiment.potentiostat.resource == MOCK:
            holder = await _load_holder_with_cell(experiment, lab, holder, stage)
        contact = await _test_contact(experiment, lab, stage)
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
        await asyncio.to_thread(_put_contact, outputs.session, contact)
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


async def contact(experiment: Experiment, *, speed: float) -> ContactRecord:
    """Tell what is in the holder, and leave it at 0 A."""
    await asyncio.to_thread(refuse_unfit, experiment)
    async with open_lab(experiment, speed=speed, holder_open=True) as lab:
        if experiment.potentiostat.resource == MOCK:
            await _rest_and_mate(experiment, lab)
        return await find_contact(experiment, lab, guardian_settings(experiment, lab))


async def _rest_and_mate(experiment: Experiment, lab: Lab) -> None:
    async with GuardedCell(guardian_settings(experiment, lab, cell_attached=False)) as source:
        source.reason = "the source rests at 0 A"
    await lab.mate_cell()


def _note_left(session: Path, t_ns: int, state: SafeState | None) -> None:
    """Say in the file where the cell was left: the recorder ends before the cell does."""
    left = "not confirmed" if state is None else state.value
    with SessionEditor.open(session) as editor:
        editor.add_event(t_ns, "cell_left", "guardian", f"cell left in: {left}", {"state": left})


async def _load_holder_with_cell(
    experiment: Experiment, lab: Lab, holder: HolderRecord | None, stage: Stage
) -> HolderRecord:
    """Do what an operator does: calibrate, rest the source at 0 A, put the cell in.

    In this order, because the source's output-off state would drain the cell.
    """
    if holder is None:
        stage("measuring the open holder")
        empty = guardian_settings(experiment, lab, cell_attached=False)
        holder, _ = await measure_holder(experiment, lab, empty)
        await lab.mate_cell()
    else:
        await _rest_and_mate(experiment, lab)
    return holder


def guardian_settings(
    experiment: Experiment,
    lab: Lab,
    *,
    cell_attached: bool = True,
    holder: HolderTerms | None = None,
) -> GuardianSettings:
    """Return what a guardian needs for an experiment in a lab.

    An open holder is read one by one, and for itself: nobody films it.
    """
    potentiostat = experiment.potentiostat
    return GuardianSettings(
        driver=potentiostat.driver,
        resource=lab.potentiostat_resource,
        clock=lab.clock.spec,
        envelope=experiment.envelope,
        cell_attached=cell_attached,
        nplc=potentiostat.nplc,
        line_frequency_Hz=potentiostat.line_frequency_Hz,
        holder=holder,
        stop_on_short=experiment.stop_on_short and cell_attached,
        asks_temperature=potentiostat.thermocouple and cell_attached,
        lease_s=VIRTUAL_LEASE_S if lab.clock.spec.lockstep else LEASE_S,
        block=potentiostat.block if cell_attached else 1,
        lines=potentiostat.lines if cell_attached else NO_LINES,
    )


def _terms(experiment: Experiment, holder: HolderRecord | None) -> HolderTerms | None:
    """Return what the holder draws in the current range of the run."""
    if holder is None:
        return None
    ranges = potentiostat_class(experiment.potentiostat.driver).ranges
    return holder.terms(experiment.range_A(ranges))


async def _test_contact(experiment: Experiment, lab: Lab, stage: Stage) -> ContactRecord | None:
    """Look for a cell between the contacts, where the experiment asks for it."""
    if experiment.contact is None:
        return None
    stage("testing the contact")
    return await find_contact(experiment, lab, guardian_settings(experiment, lab))


def _put_contact(session: Path, contact: ContactRecord) -> None:
    with SessionEditor.open(session) as editor:
        units = {"voltage": "V", "current": "A", "setpoint": "A"}
        editor.put_table("contact", contact.columns, contact.attributes(), units=units)


async def _note_before(
    recorder: Recorder, t_ns: int, holder: HolderRecord | None, contact: ContactRecord | None
) -> Ending | None:
    """Say in the file what was found before the plan; return why it may not begin."""
    if holder is not None:
        text = f"open-holder calibration: {holder.source}"
        await recorder.event(t_ns, "calibration", "runner", text, holder.attributes())
        if (doubt := holder.doubt(datetime.now(UTC))) is not None:
            await recorder.event(t_ns, "calibration_doubted", "runner", doubt, {})
    if contact is None:
        return None
    reason = contact.verdict.reason
    await recorder.event(t_ns, "contact", "runner", reason, contact.attributes())
    return None if contact.is_cell else Ending(code=ExitCode.LIMIT, reason=f"contact {reason}")


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
    terms = await asyncio.to_thread(_terms, experiment, found[0])
    settings = guardian_settings(experiment, lab, holder=terms)
    if before is not None:
        settings = replace(settings, carried=before.carried)
    cell = GuardedCell(settings)
    # The cell is outermost: whatever fails inside, it is made safe last and always.
    async with cell, AsyncExitStack() as stack:
        camera = await _enter_camera(lab, stack)
        microscope = await _enter_microscope(lab, stack)
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
        refused = await _note_before(recorder, lab.clock.now_ns(), *found)
        feed = await _enter_bus(experiment, outputs, people.control, stack)
        tracking = await _enter_tracking(experiment, lab, camera, stack)
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
        if camera is not None:
            ring = recorder.ring_counters(CAMERA)
            await recorder.queue_counters(CAMERA, asdict(ring))
            await recorder.queue_counters("previews", acquisition.previews.counters)
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
        _bus_address(experiment, outputs),
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


def _bus_address(experiment: Experiment, outputs: Outputs) -> BusAddress:
    """Return where the run is shown, and where its camera node is."""
    if (bus := experiment.bus) is None:
        raise ValueError("the experiment names no broker")
    return BusAddress(
        host=bus.host,
        port=bus.port,
        lab=bus.lab,
        session=outputs.session.stem,
        security=bus.security,
        version=bus.version,
    )


async def _enter_bus(
    experiment: Experiment, outputs: Outputs, control: Control, stack: AsyncExitStack
) -> BusFeed | None:
    if experiment.bus is None:
        return None

    def obey(command: Command) -> str | None:
        step = command.arguments.get("step")
        return control.order(
            command.word,
            source=f"bus {command.sender}",
            step=step if isinstance(step, int) else None,
            text=str(command.arguments.get("text", "")),
        )

    return await stack.enter_async_context(BusFeed(_bus_address(experiment, outputs), obey=obey))


async def _enter_camera(lab: Lab, stack: AsyncExitStack) -> FrameSource | None:
    if lab.camera is None:
        return None
    camera = await asyncio.to_thread(
        open_camera,
        lab.camera.driver,
        lab.camera.options,
        now_ns=lab.clock.now_ns,
    )
    return await stack.enter_async_context(camera)


async def _enter_tracking(
    experiment: Experiment, lab: Lab, camera: FrameSource | None, stack: AsyncExitStack
) -> LiveTracking | None:
    """Start to track what rules on images ask for; without such rules, nothing is."""
    asked = {rule.track for rules in experiment.image_rules for rule in rules}
    asked |= {rule.track for keep in experiment.keeps for rule in keep.rules}
    tracks = tuple(track for track in experiment.tracks if track.name in asked)
    if camera is None or experiment.camera is None or not tracks:
        return None
    shape = (camera.info.height, camera.info.width)
    return await stack.enter_async_context(
        LiveTracking(
            tracks,
            scene_of(experiment.camera, experiment.cell, shape),
            dtype=camera.info.dtype,
            frame_rate_Hz=camera.info.frame_rate_Hz,
            waits=lab.clock.spec.lockstep,
        )
    )


async def _enter_microscope(lab: Lab, stack: AsyncExitStack) -> Microscope | None:
    """Connect to the microscope; a run that cannot have it does not begin."""
    if (address := lab.microscope) is None:
        return None
    driver = await asyncio.to_thread(microscope_class, address.driver)
    microscope: Microscope = driver.at(address.host, address.port, now_ns=lab.clock.now_ns)
    return await stack.enter_async_context(microscope)
