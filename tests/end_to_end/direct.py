"""A driver and its simulated instrument that speak without a socket, for speed."""

import numpy as np

from mocks.keithley6430 import Keithley6430 as SimulatedKeithley6430
from mocks.pace import LockstepPace
from potentiostat.calibration import fit_holder, staircase
from potentiostat.drivers.keithley6430 import RANGES
from potentiostat.limits import Envelope
from potentiostat.protocol import Setpoint
from potentiostat.visa import Reply
from runner.calibrate import reading_times_s

ENVELOPE = Envelope(voltage_min_V=2.5, voltage_max_V=4.3, current_max_A=1e-10, charge_max_C=8e-9)
SPEC = RANGES[2]
RANGE_A = SPEC.full_scale_A


class DirectLink:
    """Hands each line to a simulated instrument and runs it to its end."""

    resource = "direct"

    def __init__(self, world):
        self.now = 0
        pace = LockstepPace(world, lambda t_ns: setattr(self, "now", t_ns))
        self.instrument = SimulatedKeithley6430(world, pace)

    def now_ns(self):
        return self.now

    def _run(self, line):
        try:
            self.instrument.handle(line).send(None)
        except StopIteration as done:
            return done.value
        raise AssertionError("in virtual time nothing waits")

    def write(self, command):
        assert self._run(command) is None, command

    def query(self, command):
        sent_ns = self.now
        return Reply(self._run(command), sent_ns, self.now)

    def resync(self):
        raise AssertionError("nothing is ever late")

    def close(self):
        pass


def record(smu, link, duration_s):
    end_ns = link.now + round(duration_s * 1e9)
    rows = []
    while link.now < end_ns:
        rows.append(smu.read())
    # As np.concatenate does, which compares the dtypes of each two of thousands of rows.
    assert {row.dtype for row in rows} == {rows[0].dtype}
    return np.frombuffer(bytearray().join(row.tobytes() for row in rows), rows[0].dtype)


def calibrate(world, link, smu):
    """Play the staircase on the open holder and fit it."""
    world.open_holder()
    smu.connect(ENVELOPE, cell_attached=False)
    parts = []
    for level in staircase():
        smu.apply(Setpoint(mode="voltage", level=level.voltage_V, clamp=9e-11, range_A=RANGE_A))
        parts.append(record(smu, link, level.hold_s))
    samples = np.concatenate(parts)
    t_s, t_sigma_s = reading_times_s(samples)
    return fit_holder(
        t_s,
        samples["voltage_V"],
        samples["current_A"],
        samples["current_sigma_A"],
        voltage_sigma_V=samples["voltage_sigma_V"],
        range_A=RANGE_A,
        t_sigma_s=t_sigma_s,
    )


def charge(world, link, smu, *, current_A=6e-11, duration_s=60.0):
    """Charge the cell in the holder; return host times and readings."""
    smu.ensure_safe()
    world.mate_cell()
    smu.connect(ENVELOPE)
    smu.apply(Setpoint(mode="current", level=current_A, clamp=4.3, range_A=RANGE_A))
    samples = record(smu, link, duration_s)
    t_s, _ = reading_times_s(samples)
    middle_ns = (samples["read_start_ns"] + samples["read_end_ns"]) // 2
    return (middle_ns[0] + np.round(t_s * 1e9)).astype(np.int64), samples
