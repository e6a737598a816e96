"""What the instrument read during each exposure, against a world whose truth is a ramp."""

import numpy as np
import pytest

from mocks.keithley2450 import Keithley2450 as Simulated2450
from mocks.keithley6430 import Keithley6430 as Simulated6430
from mocks.pace import LockstepPace
from mocks.scenario import load
from mocks.world import World
from potentiostat.drivers.keithley2450 import Keithley2450
from potentiostat.drivers.keithley6430 import Keithley6430
from potentiostat.limits import Envelope
from potentiostat.protocol import Setpoint
from potentiostat.visa import Reply
from runner.frame_samples import frame_samples
from runner.header import aperture_attributes
from session.tables import Table

ENVELOPE = Envelope(voltage_min_V=2.5, voltage_max_V=4.3, current_max_A=1e-4, charge_max_C=1.0)
RAMPS = {"voltage": (3.2, 0.02), "current": (2e-9, 2e-10)}  # at 0 s, and a second
RANGE_A = 1e-8


class RampWorld(World):
    """A world in which voltage and current rise evenly, whatever is sourced."""

    def mean(self, name, from_ns, to_ns):
        start, slope = RAMPS.get(name, (0.0, 0.0))
        return start + slope * (from_ns + to_ns) / 2e9


class DirectLink:
    resource = "direct"

    def __init__(self, simulated, world):
        self.now = 0
        pace = LockstepPace(world, lambda t_ns: setattr(self, "now", t_ns))
        self._instrument = simulated(world, pace)

    def now_ns(self):
        return self.now

    def _run(self, line):
        try:
            self._instrument.handle(line).send(None)
        except StopIteration as done:
            return done.value
        raise AssertionError("in virtual time nothing waits")

    def write(self, command):
        self._run(command)

    def query(self, command):
        sent_ns = self.now
        return Reply(self._run(command), sent_ns, self.now)

    def resync(self):
        raise AssertionError("nothing is ever late")


class Recorded:
    """As much of a session as the averages ask for."""

    def __init__(self, samples, t_ns, apertures, start_ns, exposure_ns):
        self.start_ns = start_ns
        self._columns = {
            "t_ns": t_ns,
            "voltage": samples["voltage_V"],
            "current": samples["current_A"],
            "charge": np.zeros(len(samples)),
            "range": samples["range_A"],
            **{name: samples[name] for name in ("aperture_s", "status")},
        }
        self._attributes = {} if apertures is None else aperture_attributes(apertures)
        self._exposure_ns = np.full(len(start_ns), exposure_ns)

    def has(self, path):
        return path == "instrument/potentiostat"

    def attributes(self, path):
        return self._attributes

    def sample_columns(self):
        return self._columns

    def frames(self, camera):
        return np.zeros((len(self.start_ns), 1, 1))

    def frame_table(self, camera):
        columns = {"exposure_ns": self._exposure_ns}
        return Table(path="frames/camera", columns=columns, units={}, attributes={})

    def means(self):
        columns = self._columns
        return frame_samples(self, "camera", columns["t_ns"], self.start_ns)


def play(driver, simulated, mode, readings=400):
    """Read a ramp; return the session's rows with the true middles of the readings."""
    # An instrument without gain and zero errors: what is left is when it measures.
    scenario = load("lco_thin_film", share_of_specification=0.0)
    world = RampWorld(scenario, seed=1, start_ns=0)
    link = DirectLink(simulated, world)
    smu = driver(link, now_ns=link.now_ns)
    smu.connect(ENVELOPE)
    level, clamp = (1e-9, 4.3) if mode == "current" else (3.5, 1e-8)
    smu.apply(Setpoint(mode=mode, level=level, clamp=clamp, range_A=RANGE_A))
    for _ in range(20):
        smu.read()  # until the range has settled
    first = len(world.truth()["samples"]["t_ns"])
    samples = np.concatenate([smu.read() for _ in range(readings)])
    t_ns = world.truth()["samples"]["t_ns"][first:]
    return samples, t_ns


EACH = [
    (driver, simulated, mode)
    for driver, simulated in ((Keithley6430, Simulated6430), (Keithley2450, Simulated2450))
    for mode in ("current", "voltage")
]


@pytest.mark.parametrize(("driver", "simulated", "mode"), EACH)
def test_what_is_averaged_on_a_ramp_is_true(driver, simulated, mode):
    samples, t_ns = play(driver, simulated, mode)
    start_ns = np.arange(t_ns[0] + 10**9, t_ns[-1] - 10**9, 300_000_000)
    session = Recorded(samples, t_ns, driver.apertures, start_ns, 300_000_000)
    means = session.means()
    unmoved = Recorded(samples, t_ns, None, start_ns, 300_000_000).means()
    quarter_s = 0.25 * samples["aperture_s"][0]
    for name, column in (("voltage", "voltage_V"), ("current", "current_A")):
        start, slope = RAMPS[name]
        true = start + slope * means["t_ns"] / 1e9
        error_s, wrong_s = (
            np.mean(each[f"{name}_mean"] - true) / slope for each in (means, unmoved)
        )
        noise = np.std(np.diff(samples[column])) / np.sqrt(2) / slope
        sigma_s = noise / np.sqrt(len(samples))
        assert abs(error_s) < 4 * sigma_s + 0.1 * quarter_s
        assert abs(wrong_s) == pytest.approx(quarter_s, abs=4 * sigma_s + 0.1 * quarter_s)
