"""Techniques in an experiment file: what they become, and what is refused."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from potentiostat.protocol import NO_LINES, TriggerLines
from potentiostat.technique import Level
from runner.check import Severity, check, refuse_unfit
from runner.clock import ClockSpec
from runner.experiment import Experiment, ExperimentError
from runner.format import held_text, level_text
from runner.guardian_settings import guardian_settings

ROOT = Path(__file__).parents[2]
TOUR = (ROOT / "examples" / "techniques.toml").read_text("utf-8")
HEAD = TOUR.partition("[[step]]")[0]


def load(*steps, head=HEAD):
    return Experiment.loads(head + "\n".join(f"[[step]]\n{step}" for step in steps))


def refusal(*steps, head=HEAD):
    with pytest.raises(ExperimentError) as refused:
        load(*steps, head=head)
    return str(refused.value)


def test_the_tour_has_every_technique():
    experiment = Experiment.loads(TOUR)
    names = [step.name for step in experiment.steps]
    known = {"ocv", "cp", "ca", "cv", "gcpl", "gitt", "pitt", "pulses", "lsv", "peis", "wait"}
    assert set(names) == known
    assert names[-5:] == ["pulses", "lsv", "pulses", "lsv", "ocv"]


def test_levels_are_volts_or_counted_from_the_rest():
    (step,) = load('ca = { voltage = "OCV - 20 mV", for = "10 s" }').steps
    assert step.segments[0].voltage == Level(volts=-0.02, versus="ocv")
    (step,) = load('lsv = { from = "3.9 V", to = "4.1 V", rate = "1 mV/s" }').steps
    assert step.segments[0].voltage == Level(volts=3.9)
    assert step.segments[0].ramp.to == Level(volts=4.1)


def test_currents_may_be_c_rates_and_densities():
    gitt = (
        'gitt = {{ current = "{}", pulse = "1 s", rest = "1 s", pulses = 1 }}\n'
        'until = ["V > 4.2 V"]'
    )
    (step,) = load(gitt.format("1 C")).steps
    assert step.current_A == pytest.approx(3.451e-12, rel=1e-3)
    (step,) = load(gitt.format("0.3 mA/cm^2")).steps
    assert step.current_A == pytest.approx(3e-11)


def test_loops_nest():
    ocv = 'ocv = {{ for = "{} s" }}'
    steps = load(
        ocv.format(1), ocv.format(2), "loop = { steps = 1, times = 2 }",
        "loop = { steps = 2, times = 2 }", ocv.format(3),
    ).steps  # fmt: skip
    assert [s.longest_s for s in steps] == [1, 2, 2, 1, 2, 2, 3]


def test_a_held_voltage_takes_the_range_of_the_limit():
    ranges = tuple(
        type("R", (), {"full_scale_A": a, "sources": True})() for a in (1e-11, 1e-10, 1e-9)
    )
    held = load('ca = { voltage = "3.9 V", for = "10 s" }')
    assert held.range_A(ranges) == 1e-10
    named = HEAD.replace('resource = "mock"', 'resource = "mock"\nrange = "1 nA"')
    assert load('ocv = { for = "1 s" }', head=named).range_A(ranges) == 1e-9
    with pytest.raises(ValueError, match="there is 1e-11, 1e-10"):
        load('ocv = { for = "1 s" }', head=named).range_A(ranges[:2])


EIS = '{} = {{ amplitude = "{}", lowest = "10 mHz", highest = "{}" }}'
GCPL = (
    'gcpl = {{ current = "{}", voltage = "{}", longest = "{}", hold_until = "1 pA",'
    ' hold_for = "60 s" }}'
)


@pytest.mark.parametrize(
    ("step", "key", "says"),
    [
        ('ca = { voltage = "4.4 V", for = "1 s" }', "step[1].ca.voltage", "outside the limits"),
        ('ca = { voltage = "4 V", for = "0 s" }', "step[1].ca.for", "longer than nothing"),
        ('ca = { voltage = "4", for = "1 s" }', "step[1].ca.voltage", "has no unit"),
        ('ca = { voltage = "OCV + 2 nA", for = "1 s" }', "step[1].ca.voltage", "is a current"),
        ('ca = { voltage = "4 V" }', "step[1].ca.for", "is missing"),
        ('lsv = { to = "4 V", rate = "0 mV/s" }', "step[1].lsv.rate", "more than nothing"),
        ('lsv = { to = "4 V", rat = "1 mV/s" }', "step[1].lsv.rat", "did you mean rate"),
        ('lsv = { form = "4 V", to = "4 V", rate = "1 mV/s" }', "lsv.form", "did you mean from"),
        ('lsv = { from = "2 V", to = "4 V", rate = "1 mV/s" }', "lsv.from", "outside the limits"),
        (
            'cv = { first = "4 V", second = "4.5 V", rate = "1 mV/s" }',
            *("step[1].cv.second", "outside the limits"),
        ),
        (
            'cv = { first = "4 V", second = "3.8 V", rate = "1 mV/s", cycles = 0 }',
            *("step[1].cv.cycles", "more than nothing"),
        ),
        (
            'cv = { first = "4 V", second = "3.8 V", rate = "1 mV/s", hold = "-1 s" }',
            *("step[1].cv.hold", "cannot be negative"),
        ),
        (GCPL.format("30 pA", "4.3 V", "9 s"), "step[1].gcpl.voltage", "outside the limits"),
        (GCPL.format("300 pA", "4 V", "9 s"), "step[1].gcpl.current", "beyond the limit"),
        (GCPL.format("0 pA", "4 V", "9 s"), "step[1].gcpl.current", "write ocv for a rest"),
        (GCPL.format("30 pA", "4 V", "0 s"), "step[1].gcpl.longest", "more than nothing"),
        (
            'gitt = { current = "1 pA", pulse = "1 s", rest = "1 s", pulses = 3 }',
            *("step[1].until", "a charge needs an end in voltage"),
        ),
        (
            'gitt = { current = "-1 pA", pulse = "1 s", rest = "1 s", pulses = 20000 }',
            *("step[1].gitt.pulses", "at most 10000"),
        ),
        (
            'pitt = { step = "0 mV", levels = 3, hold_for = "1 s" }',
            *("step[1].pitt.step", "is nothing"),
        ),
        (
            'pitt = { from = "4.2 V", step = "50 mV", levels = 9, hold_for = "1 s" }',
            *("step[1].pitt.levels", "end at 4.6 V"),
        ),
        (
            'pulses = { current = "1 pA", on = "1 s", off = "1 s", count = 2, base = "1 nA" }',
            *("step[1].pulses.base", "beyond the limit"),
        ),
        (EIS.format("peis", "0 mV", "1 Hz"), "step[1].peis.amplitude", "more than nothing"),
        (EIS.format("peis", "5 mV", "5 mHz"), "step[1].peis.highest", "lies above lowest"),
        (EIS.format("peis", "5 mV", "50 Hz"), "step[1].peis.highest", "a factor of 1000"),
        (
            EIS.format("peis", '5 mV", voltage = "4.299 V', "1 Hz"),
            *("step[1].peis.amplitude", "leaves the limits"),
        ),
        (
            EIS.format("geis", '5 pA", current = "98 pA', "1 Hz") + '\nuntil = ["V > 4.2 V"]',
            *("step[1].geis.amplitude", "beyond the limit"),
        ),
        (
            EIS.format("geis", '5 pA", current = "10 pA', "1 Hz"),
            *("step[1].until", "a charge needs an end in voltage"),
        ),
        (
            EIS.format("geis", '5 pA", points = 0, settle = "-1 s', "1 Hz"),
            *("step[1].geis.settle", "cannot be negative"),
        ),
        ("loop = { steps = 1, times = 2 }", "step[1].loop.steps", "no step before it"),
        ('ca = { voltage = "4 V", for = "1 s" }\nocv = { for = "1 s" }', "step[1]", "exactly one"),
    ],
)
def test_what_cannot_be_is_refused_with_its_key(step, key, says):
    told = refusal(step)
    assert key in told
    assert says in told


def test_an_impedance_settles_and_then_shakes_for_whole_periods():
    (step,) = load(EIS.format("geis", '5 pA", settle = "3 s', "100 mHz")).steps
    settle, shaken = step.segments
    assert (settle.longest_s, shaken.longest_s) == (3, 300)
    assert settle.sines is None
    assert shaken.sines.peak == step.largest_current_A == 5e-12
    assert step.needs_ocv is False
    assert not step.is_rest
    (step,) = load(EIS.format("peis", "5 mV", "100 mHz")).steps
    assert len(step.segments) == 1
    assert step.needs_ocv
    assert step.largest_current_A == 0


def test_a_loop_cannot_reach_beyond_the_beginning_or_have_an_end():
    ocv = 'ocv = { for = "1 s" }'
    assert "write 1 to 1" in refusal(ocv, "loop = { steps = 2, times = 2 }")
    assert "is 0; write 1 to" in refusal(ocv, "loop = { steps = 1, times = 0 }")
    assert "belongs to the steps" in refusal(
        ocv, 'loop = { steps = 1, times = 2 }\nuntil = ["V > 4 V"]'
    )
    assert "come to 20000 steps" in refusal(
        ocv, "loop = { steps = 1, times = 10000 }", "loop = { steps = 2, times = 2 }"
    )


# --- checks with arithmetic ------------------------------------------------------------------


def findings(*steps, head=HEAD):
    return {f.what: f for f in check(load(*steps, head=head)).findings}


def test_a_sweep_that_would_only_charge_the_holder_is_refused():
    slow = 'lsv = { to = "4 V", rate = "10 mV/s" }'
    fast = 'lsv = { to = "4 V", rate = "1 V/s" }'
    name = "step 1: current into the stray capacitance"
    assert findings(slow)[name].severity is Severity.OK
    assert findings(slow.replace("10 mV", "100 mV"))[name].severity is Severity.WARN
    assert findings(fast)[name].severity is Severity.REFUSE
    assert "150 pA" in findings(fast)[name].arithmetic


def test_a_voltmeter_that_draws_more_than_the_current_is_refused():
    head = HEAD.replace("keithley6430", "keithley2400").replace('"100 pA"', '"100 nA"')
    cp = 'cp = { current = "100 pA" }\nuntil = ["V > 4.2 V", "t > 9 s"]'
    told = findings(cp, head=head)["step 1: input leakage of the voltmeter"]
    assert told.severity is Severity.REFUSE
    assert "420 pA" in told.arithmetic
    with pytest.raises(ExperimentError, match="420 % of 100 pA"):
        refuse_unfit(load(cp, head=head))
    assert findings(cp)["step 1: input leakage of the voltmeter"].severity is Severity.OK


def test_a_current_below_five_zeros_of_the_source_is_refused():
    head = HEAD.replace("keithley6430", "keithley2600").replace('"100 pA"', '"1 nA"')
    cp = 'cp = {{ current = "{}" }}\nuntil = ["V > 4.2 V", "t > 9 s"]'
    name = "step 1: set-point against the zero of the range"
    told = findings(cp.format("5 pA"), head=head)[name]
    assert told.severity is Severity.REFUSE
    assert "5 pA is 2.5 times 2 pA; 5 times are needed" in told.arithmetic
    assert findings(cp.format("20 pA"), head=head)[name].severity is Severity.OK


def test_a_rule_on_ionic_charge_needs_a_calibration():
    cp = 'cp = { current = "30 pA" }\nuntil = ["Q_ionic > 1 nC", "V > 4.2 V", "t > 9 s"]'
    real = HEAD.replace('resource = "mock"', 'resource = "GPIB::1::INSTR"')
    assert findings(cp, head=real)["step 1: a rule on the ionic charge"].severity is Severity.REFUSE
    assert "step 1: a rule on the ionic charge" not in findings(cp)


def test_an_impedance_beyond_the_range_or_the_readings_is_refused():
    name = "step 1: highest frequency against the settling of the range"
    # 100 pA settle in 50 ms; a smaller range would take 2 s.
    slow, fast = EIS.format("peis", "5 mV", "200 mHz"), EIS.format("peis", "5 mV", "300 mHz")
    assert findings(slow)[name].severity is Severity.OK
    assert findings(fast)[name].severity is Severity.REFUSE
    assert "at most 200 mHz" in findings(fast)[name].arithmetic
    name = "step 1: highest frequency against the readings"
    long = HEAD.replace('"mock"', '"mock"\nnplc = 10', 1)
    assert findings(slow)[name].severity is Severity.OK
    assert findings(slow, head=long)[name].severity is Severity.REFUSE


def test_a_galvanostatic_impedance_needs_a_calibration_above_10_mhz():
    name = "step 1: stray capacitance across the cell"
    real = HEAD.replace('resource = "mock"', 'resource = "GPIB::1::INSTR"')
    geis = EIS.format("geis", "5 pA", "50 mHz")
    assert findings(geis)[name].severity is Severity.OK
    told = findings(geis, head=real)[name]
    assert told.severity is Severity.REFUSE
    assert "name a calibration" in told.arithmetic
    assert findings(geis.replace('"50', '"10'), head=real)[name].severity is Severity.OK
    assert findings(EIS.format("peis", "5 mV", "50 mHz"), head=real)[name].severity is Severity.OK
    weak = findings(EIS.format("geis", "50 aA", "50 mHz"))["step 1: each sine against the noise"]
    assert weak.severity is Severity.WARN


# --- blocks and trigger lines ------------------------------------------------------------------

OCV = 'ocv = { for = "2 s" }'
CAMERA = """[camera]
driver = "mock"
frame_rate = "5 Hz"
pixel_size = "4 nm"
dose_rate = "1 e/angstrom^2/s"
"""


def with_options(options, *, camera="", driver="keithley6430"):
    head = HEAD.replace("keithley6430", driver)
    return head.replace('resource = "mock"\n', f'resource = "mock"\n{options}\n') + camera


REACTION = "longest time from a limit that is passed to the safe state"


def test_the_check_shows_the_reaction_time_of_a_block_and_refuses_a_long_one():
    told = findings(OCV, head=with_options("block = 20"))[REACTION]
    assert told.severity is Severity.OK
    assert "20 x 50 ms = 1 s" in told.arithmetic
    told = findings(OCV, head=with_options("block = 21"))[REACTION]
    assert told.severity is Severity.REFUSE
    assert "half the lease, is the most: a block of 20 at 1 NPLC" in told.arithmetic
    fast = findings(OCV, head=with_options("block = 80\nnplc = 0.05"))[REACTION]
    assert fast.severity is Severity.OK
    assert REACTION not in findings(OCV, head=with_options(""))
    with pytest.raises(ExperimentError, match="half the lease"):
        refuse_unfit(load(OCV, head=with_options("block = 2500")))


def test_an_edge_that_does_not_come_costs_time_too():
    told = findings(OCV, head=with_options("exposure_line = 1", camera=CAMERA))[REACTION]
    assert told.severity is Severity.OK
    assert "750 ms for an edge that does not come + 2 x 1 x 50 ms = 850 ms" in told.arithmetic
    most = "exposure_line = 1\nblock = {}"
    for block, severity in ((12, Severity.OK), (13, Severity.REFUSE)):
        head = with_options(most.format(block), camera=CAMERA)
        assert findings(OCV, head=head)[REACTION].severity is severity
    assert "the lease, is the most: a block of 12" in findings(OCV, head=head)[REACTION].arithmetic


@pytest.mark.parametrize(
    ("options", "what", "says"),
    [
        ("block = 0", "block", "gives 1 to 2500 readings at once, not 0"),
        ("block = 2501", "block", "gives 1 to 2500 readings at once, not 2501"),
        ("exposure_line = 5", "exposure line", "has lines 1 to 4, not a line 5"),
        ("mark_line = 5", "mark line", "has lines 1 to 4, not a line 5"),
        ("exposure_line = 2\nmark_line = 2", "mark line", "an input and an output at once"),
    ],
)
def test_a_block_or_a_line_that_the_model_has_not_is_refused(options, what, says):
    head = with_options(options, camera=CAMERA)
    told = findings(OCV, head=head)[what]
    assert told.severity is Severity.REFUSE
    assert says in told.arithmetic
    with pytest.raises(ExperimentError, match="potentiostat." + what.replace(" ", "_")):
        refuse_unfit(load(OCV, head=head))


def test_a_set_point_that_moves_is_refused_in_blocks():
    name = "step 1: a moving set-point in blocks"
    lsv = 'lsv = { to = "4 V", rate = "10 mV/s" }'
    told = findings(lsv, head=with_options("block = 10"))[name]
    assert told.severity is Severity.REFUSE
    assert "10 mV/s x 500 ms = steps of 5 mV" in told.arithmetic
    told = findings(EIS.format("peis", "5 mV", "100 mHz"), head=with_options("block = 10"))[name]
    assert told.severity is Severity.REFUSE
    assert "500 ms of a period of 10 s" in told.arithmetic
    assert name not in findings(lsv, head=with_options(""))
    assert name not in findings(OCV, head=with_options("block = 10"))


def test_a_block_in_which_a_lost_contact_would_reverse_a_cell_is_refused():
    cp = 'cp = {{ current = "{}" }}\nuntil = ["V > 4.2 V", "V < 2.8 V", "t > 9 s"]'
    name = "step 1: fall of the voltage within a block, should the contact be lost"
    # 150 pF fall by 0.2 V in a second at 30 pA.
    head = with_options("block = 20").replace('"100 pA"', '"900 pA"')
    told = findings(cp.format("-30 pA"), head=head)[name]
    assert told.severity is Severity.OK
    assert "30 pA x 1 s / 150 pF (typical) = 200 mV" in told.arithmetic
    assert findings(cp.format("-400 pA"), head=head)[name].severity is Severity.REFUSE
    assert name not in findings(cp.format("30 pA"), head=head)


def test_readings_with_exposures_need_a_camera_that_is_not_too_slow():
    options = "exposure_line = 1"
    assert "has no camera to hear" in refusal(OCV, head=with_options(options))
    name = "readings begin with exposures"
    told = findings(OCV, head=with_options(options, camera=CAMERA))[name]
    assert told.severity is Severity.OK
    assert "each exposure begins one, on line 1" in told.arithmetic
    block = findings(OCV, head=with_options(options + "\nblock = 6", camera=CAMERA))
    assert "one of 2 exposure begins" in block[name].arithmetic
    slow = CAMERA.replace("5 Hz", "1 Hz")
    told = findings(OCV, head=with_options(options, camera=slow))[name]
    assert told.severity is Severity.REFUSE
    assert "at least 2 Hz" in told.arithmetic


def test_an_open_holder_is_read_one_by_one_and_without_lines():
    experiment = load(OCV, head=with_options("block = 3\nexposure_line = 1", camera=CAMERA))
    clock = SimpleNamespace(spec=ClockSpec(origin_ns=0))
    lab = SimpleNamespace(potentiostat_resource="none", clock=clock)
    cell = guardian_settings(experiment, lab)
    holder = guardian_settings(experiment, lab, cell_attached=False)
    assert (cell.block, cell.lines) == (3, TriggerLines(exposure_in=1))
    assert (holder.block, holder.lines) == (1, NO_LINES)


def test_an_impedance_has_a_reading_for_each_exposure_at_most():
    name = "step 1: highest frequency against the readings"
    peis = EIS.format("peis", "5 mV", "200 mHz")
    free = findings(peis, head=with_options("", camera=CAMERA))[name]
    locked = findings(peis, head=with_options("exposure_line = 1", camera=CAMERA))[name]
    assert "holds 100 of 50 ms" in free.arithmetic
    assert "holds 25 of 200 ms" in locked.arithmetic


def test_what_is_held_is_told_as_it_was_written():
    assert level_text(Level(volts=3.9)) == "3.9 V"
    assert level_text(Level(volts=-0.02, versus="ocv")) == "OCV - 20 mV"
    told = [held_text(step) for step in Experiment.loads(TOUR).steps]
    assert told[1] == "OCV + 20 mV"
    assert told[3] == "OCV to OCV + 30 mV at 10 mV/s, and 2 more"
    assert told[4] == "30 pA, and 2 more"
    assert told[-2] == "OCV to 3.92 V at 5 mV/s"
