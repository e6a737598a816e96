"""The cell as the runner sees it: armed through the guardian, always left safe."""

import asyncio
import math
from contextlib import suppress
from types import TracebackType
from typing import Self

from potentiostat.protocol import SafeState
from runner.guardian_process import guardian_main
from runner.messages import (
    Connected,
    EndStep,
    Finish,
    Finished,
    FromGuardian,
    GuardianSettings,
    Moderate,
    PauseStep,
    Refused,
    Renew,
    StartStep,
)
from runner.process import PipedProcess, ProcessLost

FINISH_TIMEOUT_S = 15.0
SILENCE_S = 3.0  # beyond the lease, after which a guardian is taken for frozen
LISTEN_S = 0.5  # at a time: if we were frozen ourselves, that is one such time and no more
RETRY_S = 0.5


class InstrumentUnavailable(Exception):
    """The potentiostat could not be opened, or was lost; nothing is left switched on."""


class GuardedCell:
    """A cell behind its guardian. Stands outside the task group of a run.

    Leaving the context brings the cell to its last state. If the guardian's process
    has died or is frozen, a new one opens the link again and does the same.

    Parameters
    ----------
    settings
        For the guardian.
    in_thread
        Run the guardian in a thread instead of a process.
    """

    def __init__(self, settings: GuardianSettings, *, in_thread: bool = False) -> None:
        self._settings = settings
        self._in_thread = in_thread
        self._guardian = self._new_guardian()
        self.connected: Connected | None = None
        self.left_in: SafeState | None = None
        self._closed = False
        self.reason = "the plan is done"

    def _new_guardian(self) -> PipedProcess:
        return PipedProcess("guardian", guardian_main, self._settings, in_thread=self._in_thread)

    async def __aenter__(self) -> Self:
        """Open the instrument; the cell then rests in S1.

        Raises
        ------
        InstrumentUnavailable
            The instrument does not answer or refuses its settings.
        """
        self.connected = await self._open()
        return self

    async def _open(self) -> Connected:
        await self._guardian.start()
        try:
            answer = await self._guardian.receive()
        except ProcessLost as error:
            raise InstrumentUnavailable(str(error)) from error
        if isinstance(answer, Refused):
            await self._guardian.join(FINISH_TIMEOUT_S)
            raise InstrumentUnavailable(answer.error)
        if not isinstance(answer, Connected):
            raise InstrumentUnavailable(f"the guardian answered {answer!r}")
        return answer

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Bring the cell to its last state, and say which in ``left_in``."""
        if error is not None:
            self.reason = f"{type(error).__name__}: {error}"
        await self.close()

    async def close(self) -> None:
        """Bring the cell to its last state now, before whatever else is to be waited for."""
        if not self._closed:
            # A second interruption must not cut this short.
            await asyncio.shield(self._finish())
            self._closed = True

    async def _finish(self) -> None:
        try:
            async with asyncio.timeout(FINISH_TIMEOUT_S):
                self.left_in = await self._ask_to_finish()
        except (ProcessLost, TimeoutError):
            await self._guardian.join(0.1)
            self.left_in = None
        if self.left_in is None:
            self.left_in = await self._rescue()
        await self._guardian.join(FINISH_TIMEOUT_S)

    async def _ask_to_finish(self) -> SafeState | None:
        self._guardian.send(Finish(reason=self.reason))
        while not isinstance(message := await self._guardian.receive(), Finished):
            pass
        return message.state

    async def _rescue(self) -> SafeState | None:
        """Open the link anew, with a new guardian, to make the cell safe.

        A link that failed is not used again, and a cable may be pulled: this is tried
        until it works or the time is over.
        """
        state: SafeState | None = None
        with suppress(TimeoutError):
            async with asyncio.timeout(FINISH_TIMEOUT_S):
                while state is None:
                    await self._guardian.join(RETRY_S)
                    self._guardian = self._new_guardian()
                    with suppress(ProcessLost, InstrumentUnavailable):
                        await self._open()
                        state = await self._ask_to_finish()
                    if state is None:
                        await asyncio.sleep(RETRY_S)
        return state

    def get_connected(self) -> Connected:
        """Return what the instrument said on connecting.

        Raises
        ------
        InstrumentUnavailable
            The context was not entered.
        """
        if self.connected is None:
            raise InstrumentUnavailable("the instrument is not connected")
        return self.connected

    @property
    def guardian_pid(self) -> int | None:
        """Process number of the guardian."""
        return self._guardian.pid

    def start(self, step: StartStep) -> None:
        """Hold a set-point until one of its conditions."""
        self._guardian.send(step)

    def moderate(self, index: int, share: float) -> None:
        """Have another share of the held current of a step flow."""
        self._guardian.send(Moderate(index=index, share=share))

    def end_step(self, reason: str) -> None:
        """Rest at 0 A now."""
        self._guardian.send(EndStep(reason=reason))

    def pause_step(self) -> None:
        """Set the present step aside, and rest at 0 A now."""
        self._guardian.send(PauseStep())

    def renew(self, sequence: int) -> None:
        """Renew the lease: block ``sequence`` has been dealt with; 0 lets reading begin."""
        self._guardian.send(Renew(sequence=sequence))

    async def receive(self) -> FromGuardian:
        """Return what the guardian says next.

        Raises
        ------
        InstrumentUnavailable
            The guardian died, or said nothing for longer than the lease and was ended;
            leaving the context makes the cell safe.
        """
        try:
            message = await self._listen(self._settings.lease_s + SILENCE_S)
        except ProcessLost as error:
            raise InstrumentUnavailable(str(error)) from error
        if not isinstance(message, FromGuardian):
            raise InstrumentUnavailable(f"the guardian said {message!r}")
        return message

    async def _listen(self, silence_s: float) -> object:
        for _ in range(math.ceil(silence_s / LISTEN_S)):
            with suppress(TimeoutError):
                async with asyncio.timeout(LISTEN_S):
                    return await self._guardian.receive()
        # A frozen process holds a set-point that nobody guards.
        self._guardian.kill()
        raise InstrumentUnavailable(f"the guardian was silent for {silence_s:g} s and was ended")
