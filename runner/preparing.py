"""Before a plan: the holder is measured, the cell put in, the contact tested, and all noted."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from runner.calibrate import measure_holder
from runner.cell import GuardedCell
from runner.check import refuse_unfit
from runner.config import MOCK
from runner.contact import ContactRecord, find_contact
from runner.experiment import Experiment
from runner.guardian_settings import guardian_settings
from runner.holder_record import HolderRecord
from runner.lab import Lab, open_lab
from runner.plan import Ending, ExitCode
from session.editor import SessionEditor
from session.recorder import Recorder

Stage = Callable[[str], None]
"""Told in one line what is being done; must return at once."""


async def contact(experiment: Experiment, *, speed: float) -> ContactRecord:
    """Tell what is in the holder, and leave it at 0 A."""
    await asyncio.to_thread(refuse_unfit, experiment)
    async with open_lab(experiment, speed=speed, holder_open=True) as lab:
        if experiment.potentiostat.resource == MOCK:
            await _rest_and_mate(experiment, lab)
        return await find_contact(experiment, lab, guardian_settings(experiment, lab))


async def load_holder_with_cell(
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


async def _rest_and_mate(experiment: Experiment, lab: Lab) -> None:
    async with GuardedCell(guardian_settings(experiment, lab, cell_attached=False)) as source:
        source.reason = "the source rests at 0 A"
    await lab.mate_cell()


async def look_for_cell(experiment: Experiment, lab: Lab, stage: Stage) -> ContactRecord | None:
    """Look for a cell between the contacts, where the experiment asks for it."""
    if experiment.contact is None:
        return None
    stage("testing the contact")
    return await find_contact(experiment, lab, guardian_settings(experiment, lab))


async def note_before(
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


def put_contact(session: Path, contact: ContactRecord) -> None:
    """Write the readings of a contact test into a session."""
    with SessionEditor.open(session) as editor:
        units = {"voltage": "V", "current": "A", "setpoint": "A"}
        editor.put_table("contact", contact.columns, contact.attributes(), units=units)
