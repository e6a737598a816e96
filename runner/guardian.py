"""The guardian: the one owner of an instrument's link, between the plan and the cell.

It reads without a pause, holds the hard limits next to the instrument, and takes the
cell to safety when the runner falls silent. It runs on one thread, in its own process
during an experiment.
"""

import math
import signal
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from enum import Enum, auto
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from correlate.soft_short import ShortWatch
from potentiostat.errors import InstrumentError
from potentiostat.protocol import ClockExchange, Potentiostat, SafeState, Setpoint
from potentiostat.records import Status
from runner.charge_count import ChargeCount
from runner.clock import real_now_ns
from runner.devices import open_potentiostat
from runner.messages import (
    Block,
    Connected,
    EndKind,
    EndStep,
    Finish,
    Finished,
    FromGuardian,
    GuardianSettings,
    Refused,
    Renew,
    SegmentEnded,
    StartStep,
    StepEnded,
    Tripped,
)
from runner.playing import Counts, Met, Playing

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


REST_READINGS = 10  # of which a rest voltage is the mean
MAX_BAD_READINGS = 5  # in a row, before no limit could be trusted any more


class Phase(Enum):
    """What the guardian is doing."""

    RESTING = auto()  # S1, measuring
    STEPPING = auto()  # a step's set-point is on
    TRIPPED = auto()  # made safe by itself: rests, and refuses further steps
    DONE = auto()


class Guardian:
    """The guardian's loop over one instrument.

    Parameters
    ----------
    instrument
        A connected driver; used by this thread alone.
    connection
        Pipe to the runner; its end means that the runner died.
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
        connection: "Connection[FromGuardian, object]",
        settings: GuardianSettings,
        *,
        now_ns: Callable[[], int],
        lease_now_ns: Callable[[], int] = real_now_ns,
    ) -> None:
        self._instrument = instrument
        self._connection = connection
        self._settings = settings
        self._now_ns = now_ns
        self._lease_now_ns = lease_now_ns
        self.phase = Phase.RESTING
        self._playing: Playing | None = None
        self._waiting: StartStep | None = None  # for a rest voltage to count from
        self._changed_ns = 0
        self._rest_V: deque[float] = deque(maxlen=REST_READINGS)
        self._charge = ChargeCount(settings.holder)
        self._shorts = ShortWatch()
        self._bad_readings = 0
        self._sequence = 0
        self._renewed = -1
        self._heard_ns = lease_now_ns()
        self._next_exchange_ns = now_ns()
        self._safe_state: SafeState | None = None
        self._finish_reason = ""

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
            self._leave()

    def _turn(self) -> None:
        """Take one block of readings, act on it, and report it."""
        if self.phase is Phase.TRIPPED and self._safe_state is None:
            self._safe_state = self._make_safe()  # until it is confirmed
        try:
            self._follow_level()
            samples = self._instrument.read()
            exchanges = self._exchange_if_due()
        except InstrumentError as error:
            self._trip(EndKind.FAULT, str(error))
            return
        step = self._playing.index if self._playing is not None else -1
        charge_C = self._judge(samples)
        self._sequence += 1
        self._say(
            Block(
                sequence=self._sequence,
                samples=samples,
                step=step,
                charge_C=charge_C,
                exchanges=exchanges,
            )
        )
        if self._settings.clock.lockstep:
            self._wait_for_renewal()

    def _exchange_if_due(self) -> tuple[ClockExchange, ...]:
        if self._now_ns() < self._next_exchange_ns:
            return ()
        interval_ns = int(self._settings.exchange_interval_s * 1e9)
        self._next_exchange_ns = self._now_ns() + interval_ns
        return (self._instrument.exchange_clock(),)

    # --- judging readings ------------------------------------------------------------

    def _judge(self, samples: NDArray[np.void]) -> NDArray[np.float64]:
        charge_C = np.empty(len(samples))
        for i, sample in enumerate(samples):
            self._charge.take(sample)
            charge_C[i] = self._charge.instrument_C
            self._check_limits(sample)
        return charge_C

    def _check_limits(self, sample: np.void) -> None:
        voltage_V, current_A = float(sample["voltage_V"]), float(sample["current_A"])
        status = Status(int(sample["status"]))
        bad = status & (Status.INVALID | Status.OVERFLOW)
        if bad or not (np.isfinite(voltage_V) and np.isfinite(current_A)):
            self._bad_readings += 1
            if self._bad_readings >= MAX_BAD_READINGS:
                self._trip(
                    EndKind.FAULT,
                    f"{self._bad_readings} readings in a row were not numbers",
                )
            return
        self._bad_readings = 0
        if self._settings.cell_attached:
            broken = self._settings.envelope.violation(
                voltage_V=voltage_V, current_A=current_A, charge_C=self._charge.instrument_C
            )
            if broken is not None:
                self._trip(EndKind.LIMIT, broken)
                return
        if int(sample["read_start_ns"]) < self._changed_ns:
            return
        if self._settings.stop_on_short and self._shows_short(sample):
            return
        if self._playing is None:
            self._rest_V.append(voltage_V)
            return
        met = self._playing.judge(
            self._counts(int(sample["read_end_ns"])),
            voltage_V=voltage_V,
            current_A=math.nan if status & Status.SETTLING else current_A,
        )
        if met is not None:
            self._heed(met, seen_ns=int(sample["read_end_ns"]))

    def _shows_short(self, sample: np.void) -> bool:
        """Take the cell to safety where its voltage falls as a short makes it fall."""
        segment = None if self._playing is None else self._playing.segment
        if segment is not None and (segment.current_A is None or segment.sines is not None):
            return False
        step = self._shorts.take(
            int(sample["read_end_ns"]) / 1e9,
            float(sample["voltage_V"]),
            float(sample["voltage_sigma_V"]),
        )
        if step is None or not step.closes:
            return False
        self._trip(
            EndKind.LIMIT,
            f"a short: the voltage fell by {-step.step_V:.3g} V at once at a held current "
            f"({step.significance:.0f} sigma)",
        )
        return True

    def _counts(self, t_ns: int) -> Counts:
        return Counts(
            t_ns=t_ns,
            charge_C=self._charge.instrument_C,
            charge_ionic_C=self._charge.ionic_C,
        )

    # --- what the runner says --------------------------------------------------------

    def _listen(self) -> bool:
        """Obey what has been said; False once there is nothing left to guard."""
        try:
            while self.phase is not Phase.DONE and self._connection.poll(0):
                self._obey(self._connection.recv())
        except (EOFError, OSError):
            self._runner_is_gone()
        return self.phase is not Phase.DONE

    def _obey(self, message: object) -> None:
        self._heard_ns = self._lease_now_ns()
        match message:
            case Renew(sequence=sequence):
                self._renewed = sequence
            case StartStep() if self.phase is Phase.TRIPPED:
                self._say(
                    StepEnded(
                        index=message.index,
                        kind=EndKind.FAULT,
                        reason="refused: the cell was already taken to safety",
                        t_ns=self._now_ns(),
                        latency_ns=0,
                    )
                )
            case StartStep():
                self._start_step(message)
            case EndStep(reason=reason):
                self._waiting = None
                if self._playing is not None:
                    self._end_step(EndKind.COMMAND, reason, seen_ns=self._now_ns())
            case Finish(reason=reason):
                self._finish_reason = reason
                self.phase = Phase.DONE
            case _:
                raise TypeError(f"the guardian does not know {message!r}")

    def _wait_for_renewal(self) -> None:
        """In virtual time, read on only when the runner has dealt with the block.

        What it wishes meanwhile waits too: until then others may move the time.
        """
        wishes: list[object] = []
        while self.phase is not Phase.DONE and self._renewed < self._sequence:
            try:
                if self._connection.poll(self._settings.lease_s):
                    message = self._connection.recv()
                    if isinstance(message, StartStep | EndStep):
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
            self._trip(EndKind.LEASE, f"the runner was silent for {silent_s:.1f} s")

    def _runner_is_gone(self) -> None:
        self._trip(EndKind.LEASE, "the runner is gone")
        self._finish_reason = "the runner is gone"
        self.phase = Phase.DONE

    # --- changing what the source does -------------------------------------------------

    def _start_step(self, message: StartStep) -> None:
        """Begin a step, at once or when the rest voltage that it counts from is known."""
        if message.step.needs_ocv and not self._rest_V:
            self._waiting = message
            return
        rest_V = sum(self._rest_V) / len(self._rest_V) if self._rest_V else math.nan
        playing = Playing(
            message.index,
            message.step,
            envelope=self._settings.envelope,
            range_A=message.range_A,
            ocv_V=rest_V,
        )
        self._playing = playing
        self.phase = Phase.STEPPING
        self._hold(playing.setpoint)

    def _hold(self, setpoint: Setpoint) -> None:
        """Put a segment's set-point on, and let its time begin."""
        try:
            self._instrument.apply(setpoint)
        except InstrumentError as error:
            self._trip(EndKind.FAULT, str(error))
            return
        self._changed_ns = self._now_ns()
        self._shorts.changed()
        self._rest_V.clear()
        if self._playing is not None:
            self._playing.started(self._counts(self._changed_ns))

    def _follow_level(self) -> None:
        """Begin what waited for a rest, and move what a segment moves."""
        if self._waiting is not None and self._rest_V:
            message, self._waiting = self._waiting, None
            self._start_step(message)
        if self._playing is not None:
            setpoint = self._playing.moved_setpoint(self._now_ns())
            if setpoint is not None:
                self._instrument.apply(setpoint)

    def _heed(self, met: Met, *, seen_ns: int) -> None:
        """Go on with the next segment, or end the step in rest."""
        playing = self._playing
        if playing is None:
            return
        if met.condition.action == "safe":
            self._trip(EndKind.LIMIT, met.condition.text)
            return
        if met.condition.action == "hold":
            self._end_step(EndKind.HELD, met.condition.text, seen_ns=seen_ns)
            return
        if met.ends_step:
            self._end_step(EndKind.CONDITION, met.condition.text, seen_ns=seen_ns)
            return
        ended = playing.segment.name
        self._hold(playing.next_segment())
        now_ns = self._now_ns()
        self._say(
            SegmentEnded(
                index=playing.index,
                segment=ended,
                reason=met.condition.text,
                t_ns=now_ns,
                latency_ns=now_ns - seen_ns,
            )
        )

    def _end_step(self, kind: EndKind, reason: str, *, seen_ns: int) -> None:
        playing = self._playing
        if playing is None:
            return
        try:
            self._instrument.apply(self._rest_setpoint(playing.setpoint))
        except InstrumentError as error:
            self._trip(EndKind.FAULT, str(error))
            return
        self._playing = None
        self.phase = Phase.RESTING
        now_ns = self._now_ns()
        self._changed_ns = now_ns
        self._shorts.changed()
        self._say(
            StepEnded(
                index=playing.index,
                kind=kind,
                reason=reason,
                t_ns=now_ns,
                latency_ns=now_ns - seen_ns,
            )
        )

    def _rest_setpoint(self, held: Setpoint) -> Setpoint:
        if held.mode == "voltage" and not self._settings.cell_attached:
            # An open holder has no cell to protect.
            return replace(held, level=0.0)
        return Setpoint(
            mode="current",
            level=0.0,
            clamp=self._settings.envelope.voltage_max_V,
            range_A=held.range_A,
        )

    def _trip(self, kind: EndKind, reason: str) -> None:
        """Make the cell safe now; nothing but `Finish` is obeyed afterwards."""
        if self.phase in (Phase.TRIPPED, Phase.DONE):
            return
        seen_ns = self._now_ns()
        self._safe_state = self._make_safe()
        playing, self._playing, self._waiting = self._playing, None, None
        self.phase = Phase.TRIPPED
        if playing is not None:
            self._say(
                StepEnded(
                    index=playing.index,
                    kind=kind,
                    reason=reason,
                    t_ns=self._now_ns(),
                    latency_ns=self._now_ns() - seen_ns,
                )
            )
        self._say(Tripped(kind=kind, reason=reason, state=self._safe_state, t_ns=self._now_ns()))

    def _make_safe(self) -> SafeState | None:
        try:
            return self._instrument.ensure_safe()
        except InstrumentError:
            return None

    def _leave(self) -> None:
        """Rest the cell for good, whatever happened before."""
        try:
            state: SafeState | None = self._instrument.rest_at_end()
        except InstrumentError:
            state = self._make_safe()
        self._instrument.close()
        self._say(Finished(state=state, reason=self._finish_reason, t_ns=self._now_ns()))

    def _say(self, message: FromGuardian) -> None:
        # A runner that is gone cannot listen; its silence is handled where we read.
        with suppress(OSError):
            self._connection.send(message)


def guardian_main(
    connection: "Connection[FromGuardian, object]", settings: GuardianSettings
) -> None:
    """Open the instrument and guard it: the entry point of the guardian's process."""
    # Ctrl-C reaches every process of the terminal; the runner decides what it means.
    with suppress(ValueError):  # in a thread there is no signal to ignore
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    now_ns = settings.clock.reader()
    try:
        instrument = open_potentiostat(settings, now_ns=now_ns)
        identity = instrument.connect(settings.envelope, cell_attached=settings.cell_attached)
    except InstrumentError as error:
        with suppress(OSError):
            connection.send(Refused(error=str(error)))
        return
    with suppress(OSError):
        connection.send(
            Connected(
                identity=identity,
                ranges=instrument.ranges,
                off_states=instrument.off_states,
                t_ns=now_ns(),
            )
        )
    Guardian(instrument, connection, settings, now_ns=now_ns).run()
