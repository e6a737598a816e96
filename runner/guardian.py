"""The guardian: the one owner of an instrument's link, between the plan and the cell.

It reads without a pause, holds the hard limits next to the instrument, and takes the
cell to safety when the runner falls silent. What its source is told then, and at any change
of a step, is in `runner.guardian_states`. It runs on one thread; `runner.guardian_process`
gives it a process of its own.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from potentiostat.errors import InstrumentError
from potentiostat.limits import RateGuard
from potentiostat.protocol import ClockExchange, Potentiostat
from potentiostat.records import Reading, Status, readings_of, rows_of
from potentiostat.thermometer import Thermometer
from runner.calm import Calm, calm_within
from runner.charge_count import ChargeCount
from runner.clock import real_now_ns
from runner.guardian_states import GuardianStates, Phase
from runner.inbox import Incoming
from runner.messages import (
    Block,
    EndKind,
    EndStep,
    Finish,
    FromGuardian,
    GuardianSettings,
    Moderate,
    PauseStep,
    Renew,
    StartStep,
)
from runner.outbox import Outgoing
from runner.references import REST_READINGS
from runner.sampling import Sampling
from runner.short_guard import ShortGuard
from runner.temperature_guard import TemperatureGuard

FEW = 4  # readings, from which it is quicker to look at all of them together
PLAIN = int(Status.POTENTIOSTATIC)  # the one flag of a reading that is as it should be
UNKNOWN = int(Status.INVALID | Status.OVERFLOW)
SETTLING = int(Status.SETTLING)
MAX_BAD_READINGS = 5  # in a row, before no limit could be trusted any more

Charges = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Charge of the instrument and of the cell behind its holder, C, each of shape (n,)."""


class Guardian:
    """The guardian's loop over one instrument.

    Parameters
    ----------
    instrument
        A connected driver; used by this thread alone, and let go of in the end.
    inbox
        From the runner; its end means that the runner died.
    outbox
        Takes what is said to the runner, and never waits.
    settings
        Limits, lease and intervals.
    now_ns
        Host clock.
    lease_now_ns
        Real clock for the lease, which protects real seconds at any speed.
    """

    def __init__(
        self,
        instrument: Potentiostat,
        inbox: Incoming,
        outbox: Outgoing,
        settings: GuardianSettings,
        *,
        now_ns: Callable[[], int],
        lease_now_ns: Callable[[], int] = real_now_ns,
    ) -> None:
        self._inbox = inbox
        self._outbox = outbox
        self._settings = settings
        self._now_ns = now_ns
        self._lease_now_ns = lease_now_ns
        self._rates = RateGuard(settings.envelope)
        self._charge = ChargeCount(settings.holder, settings.carried)
        self._shorts = ShortGuard()
        self._calm: Calm | None = None
        self._calm_stage: object = self  # of no step, so that the first is looked at
        self._bad_readings = 0
        self._sequence = 0
        self._renewed = -1
        self._heard_ns = lease_now_ns()
        interval_s = settings.exchange_interval_s
        self._sampling = Sampling(instrument, interval_s=interval_s, now_ns=now_ns)
        self._thermal = TemperatureGuard(
            instrument
            if settings.asks_temperature and isinstance(instrument, Thermometer)
            else None,
            settings.envelope if settings.cell_attached else None,
            start_ns=now_ns(),
        )
        self._states = GuardianStates(
            instrument,
            settings,
            charge=self._charge,
            thermal=self._thermal,
            say=self._say,
            forget=self._forget,
            now_ns=now_ns,
        )

    @property
    def phase(self) -> Phase:
        """What the guardian is doing."""
        return self._states.phase

    # --- the loop ------------------------------------------------------------------

    def run(self) -> None:
        """Guard until told to finish, or until the runner is gone."""
        try:
            if self._settings.clock.lockstep:
                # Virtual time begins when the runner says so, always at the same moment.
                self._wait_for_renewal()
            while self._listen():
                self._check_lease()
                self._turn()
        finally:
            self._states.leave()
            self._outbox.close()

    def _turn(self) -> None:
        """Take one block of readings, act on it, and report it."""
        self._states.insist()
        try:
            self._states.follow_level()
            found = self._sampling.read()
            exchanges = self._sampling.exchange_if_due(found)
            self._thermal.ask_if_due(self._now_ns(), needed=self._needs_temperature)
        except InstrumentError as error:
            self._states.trip(EndKind.FAULT, str(error))
            return
        step = self._states.playing.index if self._states.playing is not None else -1
        self._sequence += 1
        if isinstance(found, Reading) and not (exchanges or self._thermal.untold):
            charge_C, ionic_C = self._judge_one(found)
            known_C = None if self._settings.holder is None else ionic_C
            self._outbox.put_reading(self._sequence, step, found, (charge_C, known_C))
        else:
            rows = rows_of([found]) if isinstance(found, Reading) else found
            self._say_block(rows, step, exchanges)
        # What ends a step is told after it: a runner that hears of a limit listens no more.
        if self._thermal.untold:
            self._judge_temperatures()
        if self._settings.clock.lockstep:
            self._wait_for_renewal()

    def _say_block(
        self, samples: NDArray[np.void], step: int, exchanges: tuple[ClockExchange, ...]
    ) -> None:
        charge_C, ionic_C = self._judge(samples)
        self._say(
            Block(
                sequence=self._sequence,
                first=self._sequence,
                samples=samples,
                step=step,
                charge_C=charge_C,
                ionic_C=None if self._settings.holder is None else ionic_C,
                exchanges=exchanges,
                temperatures=tuple(self._thermal.untold),
            )
        )

    # --- judging the temperature -----------------------------------------------------

    def _needs_temperature(self) -> bool:
        """Tell whether a limit, or a rule of the present step, asks for the temperature."""
        step = None if self._states.playing is None else self._states.playing.step
        return self.phase is not Phase.TRIPPED and self._thermal.needs(step)

    def _judge_temperatures(self) -> None:
        """Act on what the thermometer said: limits first, then the rules of the step."""
        for reading in self._thermal.take_untold():
            playing, needed = self._states.playing, self._needs_temperature()
            broken = self._thermal.broken(reading, t_ns=self._now_ns(), needed=needed)
            if broken is not None:
                self._states.trip(*broken)
            elif playing is not None and not reading.fault:
                met = playing.judge_temperature(reading.temperature_K)
                if met is not None:
                    self._states.heed(met, seen_ns=reading.read_end_ns)

    # --- judging readings ------------------------------------------------------------

    def _judge(self, samples: NDArray[np.void]) -> Charges:
        """Act on readings; return the charge of the instrument and of the cell at each."""
        if len(samples) > FEW and (together := self._pass_together(samples)) is not None:
            return together
        charges = np.array([self._judge_one(reading) for reading in readings_of(samples)])
        charge_C, ionic_C = charges.reshape(-1, 2).T
        return charge_C, ionic_C

    def _judge_one(self, reading: Reading) -> tuple[float, float]:
        """Act on a reading; return the charge of the instrument and of the cell at it."""
        self._charge.take(reading)
        charges = self._charge.instrument_C, self._charge.ionic_C
        if not self._passes(reading):
            self._check(reading)
        return charges

    def _passes(self, reading: Reading) -> bool:
        """Pass a reading about which nothing is to be decided; tell whether it is one."""
        if reading.status & ~PLAIN or reading.read_start_ns < self._states.changed_ns:
            return False
        calm = self._calm_now()
        if calm is None or not calm.holds(
            reading.voltage_V,
            reading.current_A,
            self._charge.instrument_C,
            self._charge.ionic_C,
            reading.read_end_ns,
        ):
            return False
        self._bad_readings = 0
        self._note(reading.voltage_V, reading.current_A)
        return True

    def _pass_together(self, samples: NDArray[np.void]) -> Charges | None:
        """Pass many readings at once where nothing is to be decided about any; else None."""
        if samples["read_start_ns"][0] < self._states.changed_ns:
            return None
        if (calm := self._calm_now()) is None:
            return None
        if (ahead := self._charge.ahead(samples)) is None:
            return None
        voltage_V, current_A = samples["voltage_V"], samples["current_A"]
        end_ns = int(samples["read_end_ns"].max())
        if not calm.holds_all(voltage_V, current_A, ahead.instrument_C, ahead.ionic_C, end_ns):
            return None
        self._charge.settle(ahead)
        self._bad_readings = 0
        for i in range(-min(REST_READINGS, len(samples)), 0):
            self._note(float(voltage_V[i]), float(current_A[i]))
        return ahead.instrument_C, ahead.ionic_C

    def _calm_now(self) -> Calm | None:
        """Return the bounds within which nothing is to be decided; None where there are none."""
        playing = self._states.playing
        if self._settings.stop_on_short or not (playing is None or playing.is_idle):
            return None
        stage = None if playing is None else playing.stage
        if stage is not self._calm_stage:
            self._calm_stage = stage
            self._calm = calm_within(
                self._settings.envelope if self._settings.cell_attached else None,
                () if playing is None else playing.conditions(),
                begun_ns=self._states.begun_ns,
            )
        return self._calm

    def _check(self, reading: Reading) -> None:
        """Ask a reading everything."""
        voltage_V, current_A, status = reading.voltage_V, reading.current_A, reading.status
        if status & UNKNOWN or not (math.isfinite(voltage_V) and math.isfinite(current_A)):
            self._bad_readings += 1
            if self._bad_readings >= MAX_BAD_READINGS:
                self._states.trip(
                    EndKind.FAULT,
                    f"{self._bad_readings} readings in a row were not numbers",
                )
            return
        self._bad_readings = 0
        settled_A = math.nan if status & SETTLING else current_A
        broken = self._broken_limit(reading, settled_A) if self._settings.cell_attached else None
        if broken is not None:
            self._states.trip(EndKind.LIMIT, broken)
            return
        if reading.read_start_ns < self._states.changed_ns:
            return
        segment = None if self._states.playing is None else self._states.playing.segment
        if self._settings.stop_on_short and (short := self._shorts.broken(reading, segment)):
            self._states.trip(EndKind.LIMIT, short)
            return
        self._note(voltage_V, settled_A)
        if self._states.playing is None:
            return
        met = self._states.playing.judge(
            self._states.counts(reading.read_end_ns), voltage_V=voltage_V, current_A=settled_A
        )
        if met is not None:
            self._states.heed(met, seen_ns=reading.read_end_ns)

    def _broken_limit(self, reading: Reading, settled_A: float) -> str | None:
        """Say which hard limit a reading breaks; slopes are asked of those after a change."""
        broken = self._settings.envelope.violation(
            voltage_V=reading.voltage_V,
            current_A=reading.current_A,
            charge_C=self._charge.instrument_C,
            charge_ionic_C=self._charge.ionic_C,
            elapsed_s=(reading.read_end_ns - self._states.begun_ns) / 1e9,
        )
        if broken is not None or reading.read_start_ns < self._states.changed_ns:
            return broken
        middle_s = (reading.read_start_ns + reading.read_end_ns) / 2e9
        return self._rates.violation(middle_s, voltage_V=reading.voltage_V, current_A=settled_A)

    def _note(self, voltage_V: float, settled_A: float) -> None:
        """Keep what levels of a next step may count from."""
        self._states.levels.read(voltage_V, settled_A, playing=self._states.playing is not None)

    # --- what the runner says --------------------------------------------------------

    def _listen(self) -> bool:
        """Obey what has been said; False once there is nothing left to guard."""
        try:
            while self.phase is not Phase.DONE and self._inbox.poll(0):
                self._obey(self._inbox.recv())
        except (EOFError, OSError):
            self._runner_is_gone()
        return self.phase is not Phase.DONE

    def _obey(self, message: object) -> None:
        self._heard_ns = self._lease_now_ns()
        match message:
            case Renew(sequence=sequence):
                self._renewed = sequence
            case StartStep():
                self._states.start(message)
            case EndStep(reason=reason):
                self._states.end(reason)
            case PauseStep():
                self._states.pause()
            case Moderate():
                self._states.moderate(message)
            case Finish(reason=reason):
                self._states.finish(reason)
            case _:
                raise TypeError(f"the guardian does not know {message!r}")

    def _wait_for_renewal(self) -> None:
        """In virtual time, read on only when the runner has dealt with the block.

        What it wishes meanwhile waits too: until then others may move the time.
        """
        wishes: list[object] = []
        while self.phase is not Phase.DONE and self._renewed < self._sequence:
            try:
                if self._inbox.poll(self._settings.lease_s):
                    message = self._inbox.recv()
                    if isinstance(message, StartStep | Moderate | EndStep | PauseStep):
                        wishes.append(message)
                    else:
                        self._obey(message)
                else:
                    self._check_lease()
                    if self.phase is Phase.TRIPPED:
                        break
            except (EOFError, OSError):
                self._runner_is_gone()
        if self.phase is not Phase.DONE:
            for wish in wishes:
                self._obey(wish)

    def _check_lease(self) -> None:
        # At rest the cell is safe already; a lease is only for a set-point.
        silent_s = (self._lease_now_ns() - self._heard_ns) / 1e9
        if self.phase is Phase.STEPPING and silent_s >= self._settings.lease_s:
            self._states.trip(EndKind.LEASE, f"the runner was silent for {silent_s:.1f} s")

    def _runner_is_gone(self) -> None:
        self._states.trip(EndKind.LEASE, "the runner is gone")
        self._states.finish("the runner is gone")

    # --- what its states ask for -------------------------------------------------------

    def _forget(self) -> None:
        self._rates.forget()
        self._shorts.changed()

    def _say(self, message: FromGuardian) -> None:
        self._outbox.put(message)
