"""Keithley 6430 sub-femtoamp source-measure unit, over SCPI (6430 instruction manual).

The model has no high-impedance off state, so with a cell attached it is never switched
off: it rests at 0 A with its voltage clamped. The clamp is one magnitude; the lower side
of the cell's window is held by whoever reads. Its TIME element counts 1024 ticks of a
second as 1000 ms (manual p. 8-5), which is left raw here: multiply by `TICK_RATIO`, or
fit the clock.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from potentiostat.errors import (
    LinkError,
    NoReply,
    NotApplied,
    ReplyError,
    UnsafeRequest,
)
from potentiostat.limits import Envelope
from potentiostat.noise import current_sigma_A, voltage_sigma_V
from potentiostat.protocol import ClockExchange, SafeState, Setpoint
from potentiostat.records import SAMPLE_DTYPE, Identity, RangeSpec, Status
from potentiostat.scpi import (
    Link,
    raise_queued_errors,
    read_number,
    read_numbers,
    refuse_unsafe,
    write_number,
)

TICK_RATIO = 1000 / 1024  # true seconds in a second of the TIME element
COMPLIANCE_BIT = 8  # bit 3 of the STAT element
LARGEST_VOLTAGE_V = 21.0
VOLTAGE_RANGE_V = 20.0
VOLTAGE_STEP_V = 1e-4
VOLTAGE_NOISE_V = 5e-5  # at one power-line cycle; the calibration measures it anew

# Data sheet: accuracy within a year, resolution, settling (6430 specifications).
RANGES = tuple(
    RangeSpec(
        full_scale_A=full,
        gain_ratio=gain,
        offset_A=offset,
        resolution_A=step,
        settling_s=settling,
    )
    for full, gain, offset, step, settling in (
        (1e-12, 0.010, 7e-15, 1e-17, 2.0),
        (1e-11, 0.005, 7e-15, 1e-16, 2.0),
        (1e-10, 0.0015, 3e-14, 1e-15, 0.05),
        (1e-9, 0.0005, 2e-13, 1e-14, 0.05),
        (1e-8, 0.0005, 2e-12, 1e-13, 0.05),
    )
)


class Keithley6430:
    """A 6430 on one link, used by one thread.

    Parameters
    ----------
    link
        Open; owned by the calling thread from now on.
    now_ns
        Host clock.
    line_frequency_Hz
        Of the mains: a wrong one lets hum into every reading.
    nplc
        Integration time of each of voltage and current, in power-line cycles.
    """

    model = "6430"
    ranges = RANGES
    off_states = (SafeState.S1,)
    input_ohm = 1e16

    def __init__(
        self,
        link: Link,
        *,
        now_ns: Callable[[], int],
        line_frequency_Hz: float = 50.0,
        nplc: float = 1.0,
    ) -> None:
        self._link = link
        self._now_ns = now_ns
        self._window_s = nplc / line_frequency_Hz
        self._nplc = nplc
        self._line_frequency_Hz = line_frequency_Hz
        self._envelope: Envelope | None = None
        self._cell_attached = True
        self._setpoint: Setpoint | None = None
        self._settled_ns = 0

    # --- connecting --------------------------------------------------------------------

    def connect(self, envelope: Envelope, *, cell_attached: bool = True) -> Identity:
        """Identify, adopt the present state, rest at 0 A, lock the settings.

        An output that is on stays on and is brought to 0 A; one that is off is switched
        on only once the set-point is 0 A and the clamp stands above the cell's window.

        Raises
        ------
        InstrumentError
            It does not answer, is another model, or does not take a setting.
        UnsafeRequest
            It sources a voltage on a cell: changing that would switch the output off.
        """
        self._envelope, self._cell_attached = envelope, cell_attached
        identity = self._identify()
        self._send("*CLS")
        output_on = self._flag(":OUTP?")
        sources_voltage = self._word(":SOUR:FUNC?").startswith("VOLT")
        if output_on and sources_voltage and cell_attached:
            raise UnsafeRequest(
                f"{self._link.resource}: the output is on as a voltage source, and "
                "changing the source function would switch it off onto the cell; "
                "disconnect the cell, then connect again"
            )
        rest = self._rest_setpoint(RANGES[2].full_scale_A)
        if output_on and not sources_voltage:
            self._set_number(":SOUR:CURR", 0.0)
        self._flag_setting(":SOUR:CLE:AUTO", on=False)
        self._source_current(rest)
        self._prepare_readings(rest)
        if not self._flag(":OUTP?"):  # a change of function has switched it off, too
            self._send(":OUTP ON")
            if not self._flag(":OUTP?"):
                raise NotApplied(f"{self._link.resource}: the output stays off")
        raise_queued_errors(self._link, "connecting")
        self._changed(rest)
        return identity

    def _identify(self) -> Identity:
        raw = self._link.query("*IDN?").text
        parts = [part.strip() for part in raw.split(",")]
        if len(parts) < 4 or "6430" not in parts[1]:
            raise ReplyError(
                f"{self._link.resource}: is no 6430, it says {raw!r}; "
                "name the driver of that model instead"
            )
        return Identity(
            maker=parts[0],
            model=parts[1].removeprefix("MODEL "),
            serial=parts[2],
            firmware=",".join(parts[3:]),
            raw=raw,
        )

    def _prepare_readings(self, setpoint: Setpoint) -> None:
        self._send(":SENS:FUNC:CONC ON")
        self._send(":SENS:FUNC 'VOLT:DC','CURR:DC'")
        self._send(":FORM:DATA ASC")
        self._send(":FORM:ELEM VOLT,CURR,TIME,STAT")
        self._set_number(":SYST:LFR", self._line_frequency_Hz)
        self._set_number(":SENS:CURR:NPLC", self._nplc)
        for switch in (":SYST:AZER:STAT", ":SENS:AVER", ":SENS:MED"):
            self._send(f"{switch} OFF")
        self._set_number(":SENS:VOLT:RANG", VOLTAGE_RANGE_V)
        self._set_number(":SENS:CURR:RANG", setpoint.range_A)

    # --- sourcing ----------------------------------------------------------------------

    def apply(self, setpoint: Setpoint) -> None:
        """Source ``setpoint``, read it back, and check the error queue.

        Raises
        ------
        UnsafeRequest
            It lies outside the envelope, has a clamp that the model does not, or would
            put a voltage source on a cell.
        NotApplied, InstrumentRefused, LinkError
            The instrument did not take it.
        """
        self._refuse_unfit(setpoint)
        if setpoint.mode == "current":
            self._source_current(setpoint)
        else:
            self._source_voltage(setpoint)
        raise_queued_errors(self._link, f"setting {setpoint.level:g}")
        self._changed(setpoint)

    def _refuse_unfit(self, setpoint: Setpoint) -> None:
        envelope = self._known_envelope()
        if setpoint.range_A not in {r.full_scale_A for r in RANGES}:
            raise UnsafeRequest(f"the 6430 has no range of {setpoint.range_A:g} A here")
        if setpoint.mode == "voltage" and self._cell_attached:
            raise UnsafeRequest(
                "a voltage source is for the open holder only: on this model a change "
                "of the source function switches the output off onto the cell"
            )
        if setpoint.mode == "current":
            if abs(setpoint.level) > min(envelope.current_max_A, 1.05 * setpoint.range_A):
                raise UnsafeRequest(f"{setpoint.level:g} A is beyond the limit or range")
            if not 0 < setpoint.clamp <= min(envelope.voltage_max_V, LARGEST_VOLTAGE_V):
                raise UnsafeRequest(f"a clamp of {setpoint.clamp:g} V is not in the window")

    def _source_current(self, setpoint: Setpoint) -> None:
        was_voltage = not self._word(":SOUR:FUNC?").startswith("CURR")
        if was_voltage:
            self._send(":SOUR:FUNC CURR")
            self._send(":SOUR:CURR:MODE FIX")
        # The clamp first: no level ever stands without it.
        self._set_number(":SENS:VOLT:PROT", setpoint.clamp)
        if was_voltage or not math.isclose(self._number(":SOUR:CURR:RANG?"), setpoint.range_A):
            self._set_number(":SOUR:CURR", 0.0)  # a range changes only at 0 A
            self._set_number(":SOUR:CURR:RANG", setpoint.range_A)
            self._set_number(":SENS:CURR:RANG", setpoint.range_A)
        self._set_number(":SOUR:CURR", setpoint.level)
        if not self._cell_attached and self._setpoint is not None:
            self._send(":OUTP ON")  # a change of function has switched it off

    def _source_voltage(self, setpoint: Setpoint) -> None:
        if not self._word(":SOUR:FUNC?").startswith("VOLT"):
            self._set_number(":SOUR:CURR", 0.0)
            self._send(":SOUR:FUNC VOLT")
            self._send(":SOUR:VOLT:MODE FIX")
            self._set_number(":SOUR:VOLT:RANG", VOLTAGE_RANGE_V)
        self._set_number(":SENS:CURR:PROT", setpoint.clamp)
        self._set_number(":SENS:CURR:RANG", setpoint.range_A)
        self._set_number(":SOUR:VOLT", setpoint.level)
        self._send(":OUTP ON")

    def _rest_setpoint(self, range_A: float) -> Setpoint:
        clamp = self._known_envelope().voltage_max_V
        return Setpoint(mode="current", level=0.0, clamp=clamp, range_A=range_A)

    def _known_envelope(self) -> Envelope:
        if self._envelope is None:
            raise LinkError(f"{self._link.resource}: connect first")
        return self._envelope

    def _changed(self, setpoint: Setpoint) -> None:
        """Note a change: readings are unsettled for a while after it."""
        self._setpoint = setpoint
        settling_s = next(r.settling_s for r in RANGES if r.full_scale_A == setpoint.range_A)
        self._settled_ns = self._now_ns() + round(settling_s * 1e9)

    # --- reading -----------------------------------------------------------------------

    def read(self) -> NDArray[np.void]:
        """Take one reading of voltage and current; SAMPLE_DTYPE, shape (1,).

        Raises
        ------
        LinkError
            The link is gone. A reply that makes no sense gives a row marked INVALID.
        """
        reply = self._link.query(":READ?")
        row = np.zeros(1, SAMPLE_DTYPE)
        row["read_start_ns"], row["read_end_ns"] = reply.sent_ns, reply.received_ns
        row["aperture_s"] = 2 * self._window_s
        if self._setpoint is not None:
            row["setpoint"], row["range_A"] = (
                self._setpoint.level,
                self._setpoint.range_A,
            )
        status = Status(0)
        if reply.sent_ns < self._settled_ns:
            status |= Status.SETTLING
        try:
            voltage_V, current_A, time_s, bits = read_numbers(reply.text, 4)
        except ReplyError:
            voltage_V = current_A = time_s = math.nan
            bits, status = 0.0, status | Status.INVALID
        if math.isinf(voltage_V) or math.isinf(current_A):
            status |= Status.OVERFLOW
        elif math.isnan(voltage_V) or math.isnan(current_A) or not math.isfinite(bits):
            status |= Status.INVALID
        if math.isfinite(bits) and int(bits) & COMPLIANCE_BIT:
            status |= Status.COMPLIANCE
        row["voltage_V"], row["current_A"] = voltage_V, current_A
        row["device_time_s"], row["status"] = time_s, int(status)
        self._fill_sigmas(row, current_A)
        return row

    def _fill_sigmas(self, row: NDArray[np.void], current_A: float) -> None:
        row["voltage_sigma_V"] = voltage_sigma_V(
            noise_V_at_1_plc=VOLTAGE_NOISE_V,
            window_s=self._window_s,
            step_V=VOLTAGE_STEP_V,
        )
        spec = next((r for r in RANGES if r.full_scale_A == float(row["range_A"][0])), RANGES[2])
        row["current_sigma_A"] = current_sigma_A(
            current_A if math.isfinite(current_A) else 0.0,
            feedback_ohm=1.0 / spec.full_scale_A,
            window_s=self._window_s,
            resolution_A=spec.resolution_A,
        )

    def exchange_clock(self) -> ClockExchange:
        """Ask for the instrument's time, raw: it runs 2.4 % fast."""
        reply = self._link.query(":SYST:TIME?")
        return ClockExchange(
            sent_ns=reply.sent_ns,
            device_time_s=read_number(reply.text),
            received_ns=reply.received_ns,
        )

    # --- safety ------------------------------------------------------------------------

    def ensure_safe(self) -> SafeState:
        """Bring the cell to S1: 0 A, clamped, output on. At any time, twice if need be.

        Raises
        ------
        InstrumentError
            It could not be confirmed.
        """
        try:
            return self._rest()
        except NoReply:
            return self._rest()

    def _rest(self) -> SafeState:
        range_A = RANGES[2].full_scale_A if self._setpoint is None else self._setpoint.range_A
        if self._word(":SOUR:FUNC?").startswith("VOLT"):
            if self._cell_attached:
                raise UnsafeRequest("it sources a voltage; disconnect the cell")
            self._source_current(self._rest_setpoint(range_A))
        self._set_number(":SOUR:CURR", 0.0)
        self._set_number(":SENS:VOLT:PROT", self._known_envelope().voltage_max_V)
        if not self._flag(":OUTP?"):
            self._send(":OUTP ON")
            if not self._flag(":OUTP?"):
                raise NotApplied(f"{self._link.resource}: the output stays off")
        self._changed(self._rest_setpoint(range_A))
        return SafeState.S1

    def rest_at_end(self) -> SafeState:
        """Rest in S1: the model has no high impedance. Disconnect the cell, then switch off."""
        return self.ensure_safe()

    def close(self) -> None:
        """Let go of the link; the source stays as it is."""
        self._link.close()

    # --- one setting at a time -------------------------------------------------------------

    def _send(self, command: str) -> None:
        refuse_unsafe(command, off_is_short=self._cell_attached)
        self._link.write(command)

    def _set_number(self, header: str, value: float) -> None:
        """Send a number and read it back."""
        self._send(f"{header} {write_number(value)}")
        found = self._number(f"{header}?")
        if not math.isclose(found, value, rel_tol=1e-6, abs_tol=1e-18):
            errors = self._link.query(":SYST:ERR?").text
            raise NotApplied(
                f"{self._link.resource}: {header} was set to {value:g} and reads back "
                f"{found:g} ({errors})"
            )

    def _flag_setting(self, header: str, *, on: bool) -> None:
        self._send(f"{header} {'ON' if on else 'OFF'}")
        if self._flag(f"{header}?") is not on:
            raise NotApplied(f"{self._link.resource}: {header} was not taken")

    def _number(self, query: str) -> float:
        return read_number(self._link.query(query).text)

    def _flag(self, query: str) -> bool:
        return bool(round(self._number(query)))

    def _word(self, query: str) -> str:
        return self._link.query(query).text.strip('"').upper()
