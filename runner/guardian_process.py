"""The guardian's process: it opens the instrument's link, and guards until it is told to finish."""

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from potentiostat.claim import Claim
from potentiostat.errors import InstrumentError
from runner.devices import open_potentiostat
from runner.guardian import Guardian
from runner.inbox import Inbox
from runner.messages import Connected, FromGuardian, GuardianSettings, Refused
from runner.outbox import GATHER_S, Outbox

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

THREAD_TURN_S = 1e-4


def guardian_main(
    connection: "Connection[FromGuardian, object]", settings: GuardianSettings
) -> None:
    """Open the instrument and guard it: the entry point of the guardian's process."""
    # Ctrl-C reaches every process of the terminal; the runner decides what it means.
    with suppress(ValueError):  # in a thread there is no signal to ignore
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Python lets a thread work on for 5 ms while another waits: here the limits would wait.
    sys.setswitchinterval(THREAD_TURN_S)
    now_ns = settings.clock.reader()
    try:
        with Claim(settings.resource):
            _guard(connection, settings, now_ns)
    except InstrumentError as error:
        with suppress(OSError):
            connection.send(Refused(error=str(error)))


def _guard(
    connection: "Connection[FromGuardian, object]",
    settings: GuardianSettings,
    now_ns: Callable[[], int],
) -> None:
    """Open the instrument and guard it.

    Raises
    ------
    InstrumentError
        It cannot be opened.
    """
    instrument = open_potentiostat(settings, now_ns=now_ns)
    identity = instrument.connect(settings.envelope, cell_attached=settings.cell_attached)
    with suppress(OSError):
        connection.send(
            Connected(
                identity=identity,
                ranges=instrument.ranges,
                apertures=instrument.apertures,
                off_states=instrument.off_states,
                t_ns=now_ns(),
                thermometer=instrument.thermometer if settings.asks_temperature else None,
            )
        )
    outbox = Outbox(connection, gather_s=0.0 if settings.clock.lockstep else GATHER_S)
    Guardian(instrument, Inbox(connection), outbox, settings, now_ns=now_ns).run()
