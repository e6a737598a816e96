"""The plan that a session holds: its experiment, and its steps as they were played."""

from collections.abc import Mapping

from potentiostat.segments import Step
from potentiostat.technique_data import step_from_data
from runner.experiment import Experiment, ExperimentError
from session.reader import Session


def experiment_of(session: Session) -> Experiment | None:
    """Return the experiment that a session holds; None for an imported one."""
    try:
        return Experiment.loads(session.experiment_text, name=str(session.path))
    except ExperimentError:
        return None


def played_steps(session: Session) -> dict[int, Step]:
    """Return the steps of a run by the number with which they were played.

    The events say so. Where one does not, because its step is a long one or the session is
    older, the experiment says so, unless rules have jumped in it.
    """
    experiment = experiment_of(session)
    written = () if experiment is None else experiment.steps
    jumps = any(condition.goto for step in written for condition in step.until)
    steps = {} if jumps else dict(enumerate(written))
    for event in session.events():
        data = event.data.get("technique") if event.kind == "step_started" else None
        if isinstance(data, Mapping):
            steps[int(str(event.data["step"]))] = step_from_data(data)
    return steps
