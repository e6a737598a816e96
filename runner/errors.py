"""Which error means which exit code: the one place that knows all families.

the input was refused (2)          ExperimentError, QuantityError, OutputRefused,
                                   LabError, SessionRefused, SessionExists,
                                   CannotTrack, UnknownTracker, RecordingError, EdgeFileError,
                                   HolderMismatch, BadCredentials, CannotContinue, BadNote,
                                   CannotTry, ViewError, WorkersRefused
an instrument or camera failed (3) InstrumentError, InstrumentUnavailable,
                                   CameraError, RecorderLost
"""

from cameras.errors import CameraError
from cameras.files.recording import FrameFileError
from correlate.registry import UnknownTracker
from correlate.trackers.protocol import CannotTrack
from potentiostat.errors import InstrumentError
from potentiostat.files.recording import RecordingError
from runner.bus_security import BadCredentials
from runner.cell import InstrumentUnavailable
from runner.dry_run import CannotTry
from runner.edge_files import EdgeFileError
from runner.lab import LabError
from runner.newfile import UnknownTemplate
from runner.note_text import BadNote
from runner.outputs import OutputRefused
from runner.plan import ExitCode
from runner.position import CannotContinue
from runner.problems import ExperimentError
from runner.quantities import QuantityError
from runner.session_holder import HolderMismatch
from runner.team import WorkersRefused
from runner.view_port import ViewError
from session.errors import RecorderLost, SessionExists, SessionRefused

REFUSED: tuple[type[Exception], ...] = (
    ExperimentError,
    QuantityError,
    OutputRefused,
    LabError,
    SessionRefused,
    SessionExists,
    CannotTrack,
    UnknownTracker,
    UnknownTemplate,
    RecordingError,
    FrameFileError,
    EdgeFileError,
    HolderMismatch,
    BadCredentials,
    CannotContinue,
    BadNote,
    CannotTry,
    ViewError,
    WorkersRefused,
)
FAILED: tuple[type[Exception], ...] = (
    InstrumentError,
    InstrumentUnavailable,
    CameraError,
    RecorderLost,
)


def first_cause(error: BaseException) -> BaseException:
    """Return the error inside a group of them: the first that one of the families knows."""
    if isinstance(error, BaseExceptionGroup):
        inner = [first_cause(e) for e in error.exceptions]
        known = [e for e in inner if isinstance(e, (*REFUSED, *FAILED))]
        return (known or inner)[0]
    return error


def exit_code_of(error: BaseException) -> ExitCode | None:
    """Return the exit code of an error, or None for a defect of ours."""
    cause = first_cause(error)
    if isinstance(cause, REFUSED):
        return ExitCode.REFUSED
    if isinstance(cause, FAILED):
        return ExitCode.FAILED
    return None


def message_of(error: BaseException) -> str:
    """Return what to tell a person."""
    return str(first_cause(error))
