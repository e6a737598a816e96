"""What `lamella check` says of instrument, holder, noise, settling and time: ok, warn, refuse."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from potentiostat.calibration import HolderCalibration
from potentiostat.records import RangeSpec
from runner import budget
from runner.check import Severity, check, refuse_unfit
from runner.experiment import Experiment, ExperimentError
from runner.plan_checks import waits
from session.calibration_file import write_calibration

ROOT = Path(__file__).parents[2]
TOUR = (ROOT / "examples" / "techniques.toml").read_text("utf-8")
HEAD = TOUR.partition("[[step]]")[0]
OK, WARN, REFUSE = Severity.OK, Severity.WARN, Severity.REFUSE


def load(*steps, head=HEAD, folder=None):
    text = head + "\n".join(f"[[step]]\n{step}" for step in steps)
    return Experiment.loads(text, folder=folder)


def findings(*steps, head=HEAD, folder=None):
    return {f.what: f for f in check(load(*steps, head=head, folder=folder)).findings}


def found(what, *steps, head=HEAD, folder=None):
    """Return the one finding that is called so."""
    told = findings(*steps, head=head, folder=folder)
    near = [f for name, f in told.items() if what in name]
    assert len(near) == 1, list(told)
    return near[0]


def cp(current, *rules, time="9 s"):
    stop = "V < 2.8 V" if current.startswith("-") else "V > 4.2 V"
    listed = ", ".join(f'"{rule}"' for rule in (*rules, stop, f"t > {time}"))
    return f'cp = {{ current = "{current}" }}\nuntil = [{listed}]'


# --- the holder ---


def holder_head(folder, *, conductance_S=1e-13, capacitance_F=150e-12, range_A=1e-10, name=None):
    calibration = HolderCalibration(
        capacitance_F=capacitance_F,
        capacitance_sigma_F=1e-13,
        conductance_S=conductance_S,
        conductance_sigma_S=1e-15,
        dielectric_F=1e-12,
        dielectric_sigma_F=1e-13,
        dielectric_tau_s=10.0,
        offset_A=1e-15,
        offset_sigma_A=1e-16,
        noise_A=1e-14,
        chi2=1.0,
        range_A=range_A,
    )
    names = HolderCalibration.__slots__
    write_calibration(
        folder / "holder.h5",
        {**{n: getattr(calibration, n) for n in names}, "source": "a test"},
        {"voltage": np.zeros(3)},
    )
    named = name or "holder.h5"
    return HEAD.replace('resource = "mock"', f'resource = "mock"\ncalibration = "{named}"')


@pytest.mark.parametrize(
    ("conductance_S", "severity"), [(1e-13, OK), (2e-12, WARN), (1 / 36e9, REFUSE)]
)
def test_a_holder_that_leaks_as_much_as_the_current_is_refused(tmp_path, conductance_S, severity):
    head = holder_head(tmp_path, conductance_S=conductance_S)
    told = found("leakage of the holder", cp("20 pA"), head=head, folder=tmp_path)
    assert told.severity is severity
    if severity is REFUSE:  # 36 Gohm, as a published holder has
        assert "(36 Gohm) = 116.7 pA, 583 % of 20 pA" in told.arithmetic


def test_a_current_that_the_holder_never_lets_fall_is_refused(tmp_path):
    ca = 'ca = { voltage = "4 V", for = "9 s" }\nuntil = ["|I| < 1 pA"]'
    head = holder_head(tmp_path, conductance_S=1e-12)
    told = found("leakage of the holder against |I| < 1 pA", ca, head=head, folder=tmp_path)
    assert told.severity is REFUSE
    assert "4.2 pA" in told.arithmetic
    assert not any(
        "leakage of the holder" in what
        for what in findings(ca.replace("1 pA", "10 pA"), head=head, folder=tmp_path)
    )


def test_a_calibration_of_another_range_is_told(tmp_path):
    head = holder_head(tmp_path, range_A=1e-11)
    told = found("range of the open-holder calibration", cp("20 pA"), head=head, folder=tmp_path)
    assert told.severity is WARN
    own = findings(cp("9 pA"), head=head, folder=tmp_path)
    assert "range of the open-holder calibration" not in own


def test_a_calibration_that_is_not_there_is_refused(tmp_path):
    head = holder_head(tmp_path, name="other.h5")
    told = found("open-holder calibration", cp("20 pA"), head=head, folder=tmp_path)
    assert told.severity is REFUSE
    assert "other.h5" in told.arithmetic


@pytest.mark.parametrize(
    ("capacitance_F", "severity"), [(150e-12, OK), (2e-9, WARN), (10e-9, REFUSE)]
)
def test_a_sweep_that_sees_the_holder_more_than_the_film_is_refused(
    tmp_path, capacitance_F, severity
):
    lsv = 'lsv = { to = "4 V", rate = "1 mV/s" }'
    head = holder_head(tmp_path, capacitance_F=capacitance_F)
    told = found("stray capacitance beside the film", lsv, head=head, folder=tmp_path)
    assert told.severity is severity
    assert "12.42 nC / 1.4 V = 8.873 nF" in told.arithmetic
    assert not any("beside the film" in what for what in findings(cp("20 pA")))
    unknown = HEAD.replace("LiCoO2", "Sn")
    assert not any("beside the film" in what for what in findings(lsv, head=unknown))


# --- noise ---


@pytest.mark.parametrize(
    ("rule", "severity"),
    [
        ("|dV/dt| < 1 mV/s", OK),
        ("|dV/dt| < 2 mV/h", WARN),
        ("|dV/dt| < 0.1 mV/h", REFUSE),
        ("|I| < 50 fA", OK),
        ("|I| < 10 fA", WARN),
        ("I < 3 fA", REFUSE),
        ("|dI/dt| < 1 pA/s over 20 s", OK),
        ("|dI/dt| < 10 aA/s over 20 s", REFUSE),
    ],
)
def test_a_rule_that_noise_decides_is_refused(rule, severity):
    ocv = f'ocv = {{ for = "60 s" }}\nuntil = ["{rule}"]'
    told = found(rule, ocv, cp("90 pA"))
    assert told.severity is severity
    assert ("chance decides" in told.arithmetic) is (severity is not OK)


def test_a_rule_on_a_slope_of_too_few_readings_is_refused():
    ocv = 'ocv = {{ for = "60 s" }}\nuntil = ["|dV/dt| < 10 mV/s over {}"]'
    told = found("readings in the window", ocv.format("200 ms"))
    assert told.severity is REFUSE
    assert "or it is never met" in told.arithmetic
    assert not any("in the window" in what for what in findings(ocv.format("2 s")))


def test_a_slope_through_noise_has_the_spread_that_is_worked_out():
    rng = np.random.default_rng(3)
    t_s = np.arange(0, 10.0, 0.05)
    slopes = [np.polyfit(t_s, 1e-5 * rng.standard_normal(len(t_s)), 1)[0] for _ in range(400)]
    assert np.std(slopes) == pytest.approx(budget.slope_sigma(1e-5, 10.0, 0.05), rel=0.1)


@pytest.mark.parametrize(
    ("current", "severity"), [("9 fA", OK), ("1 fA", WARN), ("0.5 fA", REFUSE)]
)
def test_a_set_point_in_the_noise_of_a_reading_is_refused(current, severity):
    # Only the noise is asked here; what the source can be trusted with is another finding.
    named = HEAD.replace('resource = "mock"', 'resource = "mock"\nrange = "1 pA"')
    told = found("set-point against the noise", cp(current, time="60 s"), head=named)
    assert told.severity is severity


def test_a_driver_that_does_not_say_its_noise_is_not_asked_for_it(monkeypatch):
    class Silent:
        """A driver without a word on its noise."""

        input_ohm = 1e15

    monkeypatch.setattr(budget, "potentiostat_class", lambda _name: Silent)
    used = RangeSpec(
        full_scale_A=1e-10, gain_ratio=0.0, offset_A=0.0, resolution_A=1e-15, settling_s=0.05
    )
    ocv = 'ocv = { for = "60 s" }\nuntil = ["|dV/dt| < 1 nV/h"]'
    told = [f.what for f in budget.budget(load(ocv), used)]
    assert not any("dV/dt" in what for what in told)


# --- settling and readings ---

PULSES = 'pulses = {{ current = "{}", on = "{}", off = "1 min", count = 2 }}\nuntil = ["V > 4.2 V"]'


@pytest.mark.parametrize(
    ("current", "on", "severity"),
    [
        ("20 pA", "1 s", OK),
        ("20 pA", "400 ms", WARN),
        ("20 pA", "100 ms", REFUSE),
        ("5 pA", "30 s", OK),
        ("5 pA", "10 s", WARN),
        ("5 pA", "5 s", REFUSE),
    ],
)
def test_a_pulse_that_is_shorter_than_the_settling_of_the_range_is_refused(current, on, severity):
    told = found("shortest part against the settling", PULSES.format(current, on))
    assert told.severity is severity
    assert "on 1 lasts" in told.arithmetic


def test_a_pulse_needs_readings_too():
    slow = HEAD.replace('resource = "mock"', 'resource = "mock"\nnplc = 5')
    name = "shortest part against the readings"
    assert found(name, PULSES.format("20 pA", "3 s"), head=slow).severity is OK
    assert found(name, PULSES.format("20 pA", "1 s"), head=slow).severity is WARN
    told = found(name, PULSES.format("20 pA", "500 ms"), head=slow)
    assert told.severity is REFUSE
    assert "210 ms; 3 times are needed" in told.arithmetic


def test_each_high_stair_of_a_sweep_is_a_part():
    lsv = 'lsv = {{ to = "4 V", rate = "{}", step = "5 mV" }}'
    name = "shortest part against the settling"
    assert found(name, lsv.format("5 mV/s")).severity is OK
    assert found(name, lsv.format("20 mV/s")).severity is WARN
    assert found(name, lsv.format("50 mV/s")).severity is REFUSE
    smooth = 'lsv = { to = "4 V", rate = "50 mV/s" }'
    assert not any(name in what for what in findings(smooth))


def test_what_is_in_order_is_told_once():
    told = [what for what in findings(*[cp("20 pA")] * 3) if "set-point against the noise" in what]
    assert told == ["step 1: set-point against the noise"]
    weak = [f.severity for w, f in findings(*[PULSES.format("20 pA", "100 ms")] * 2).items()
            if "against the settling" in w]  # fmt: skip
    assert weak == [REFUSE, REFUSE]


# --- limits on slopes ---


def rates_head(**limits):
    words = "\n".join(f'{name} = "{value}"' for name, value in limits.items())
    return HEAD.replace("[limits]", f"[limits]\n{words}")


@pytest.mark.parametrize(
    ("window", "severity"), [("2 s", OK), ("500 ms", WARN), ("200 ms", REFUSE)]
)
def test_a_limit_on_a_slope_needs_readings_in_its_window(window, severity):
    head = rates_head(voltage_rate="1 V/s", rate_window=window)
    assert found("readings in their window", cp("20 pA"), head=head).severity is severity


@pytest.mark.parametrize(
    ("limits", "severity"),
    [
        ({"voltage_rate": "1 mV/s"}, OK),
        ({"voltage_rate": "30 uV/s"}, WARN),
        ({"voltage_rate": "1 uV/s"}, REFUSE),
        ({"current_rate": "1 pA/s"}, OK),
        ({"current_rate": "0.1 fA/s"}, REFUSE),
    ],
)
def test_a_limit_on_a_slope_within_the_noise_is_refused(limits, severity):
    (name,) = limits
    head = rates_head(**limits)
    assert found(f"limit {name} against the noise", cp("20 pA"), head=head).severity is severity


@pytest.mark.parametrize(
    "step",
    [
        'lsv = { to = "4 V", rate = "20 mV/s" }',
        'peis = { amplitude = "10 mV", lowest = "50 mHz", highest = "200 mHz" }',
    ],
)
def test_a_plan_that_would_trip_over_its_own_slope_is_refused(step):
    name = "its own slope against the limit"
    assert found(name, step, head=rates_head(voltage_rate="5 mV/s")).severity is REFUSE
    assert not any(name in what for what in findings(step, head=rates_head(voltage_rate="1 V/s")))


def test_a_shaken_current_has_a_slope_too():
    geis = 'geis = { amplitude = "20 pA", lowest = "50 mHz", highest = "200 mHz" }'
    head = rates_head(current_rate="10 pA/s")
    assert found("its own slope", geis, head=head).severity is REFUSE


# --- charge and time ---


def test_a_plan_that_may_pass_more_than_the_limit_of_charge_is_told():
    name = "charge of the held currents"
    assert found(name, cp("20 pA", time="100 s")).severity is OK
    told = found(name, cp("20 pA", time="500 s"))
    assert told.severity is WARN
    assert "at most 10 nC" in told.arithmetic
    there_and_back = [cp("20 pA", time="300 s"), cp("-20 pA", time="300 s")] * 3
    assert found(name, *there_and_back).severity is OK
    assert name not in findings('ocv = { for = "1 s" }')


def test_rules_on_charge_say_how_long_it_will_take():
    assert (
        found("duration by the rules on charge", cp("20 pA", "|Q| > 1 nC", time="1 h")).arithmetic
        == "50 s"
    )
    assert found("charge of the held", cp("20 pA", "Q > 1 nC", time="1 h")).severity is OK
    # A discharge counts down: Q > 1 nC never ends it.
    backwards = cp("-20 pA", "Q > 1 nC", time="1 h")
    assert "duration by the rules on charge" not in findings(backwards)
    down = cp("-20 pA", "Q < -1 nC", time="1 h")
    assert found("duration by the rules on charge", down).arithmetic == "50 s"


def test_a_step_without_an_end_in_time_is_refused():
    from dataclasses import replace

    from potentiostat.technique import chronopotentiometry

    endless = replace(load(cp("20 pA")), steps=(chronopotentiometry(2e-11, ()),))
    with pytest.raises(ExperimentError, match=r'there is none; write a rule such as "t > 120 s"'):
        refuse_unfit(endless)


# --- what a plan says of the run ---


def test_a_time_of_day_that_is_past_is_refused():
    plan = load('wait = { until = "2026-11-26 08:00Z" }')
    (before,) = waits(plan, datetime(2026, 11, 26, 7, 0, tzinfo=UTC))
    assert (before.severity, "3600 s from now" in before.arithmetic) == (OK, True)
    (late,) = waits(plan, datetime(2026, 11, 26, 9, 0, tzinfo=UTC))
    assert late.severity is REFUSE
    (far,) = waits(plan, datetime(2026, 10, 26, 9, 0, tzinfo=UTC))
    assert far.severity is REFUSE
    assert not list(waits(load('ocv = { for = "1 s" }'), datetime.now(UTC)))


def gitt(pulse, rest):
    step = f'gitt = {{ current = "3 pA", pulse = "{pulse}", rest = "{rest}", pulses = 2 }}'
    return f'{step}\nuntil = ["V > 4.2 V"]'


def test_a_titration_that_no_diffusivity_fits_is_warned_of():
    short = found("pulse and rest", gitt("20 s", "60 s"))
    assert short.severity is WARN
    assert "no D is between these" in short.arithmetic
    assert "rest for 80 s or longer" in short.arithmetic
    well = found("pulse and rest", gitt("20 s", "110 s"))
    assert well.severity is OK
    # L is 500 nm: by hand, a tenth of L2/D and four tenths of it.
    assert f"up to D = {0.1 * 25e-14 / 20:.2g} m2/s" in well.arithmetic
    assert f"from D = {0.4 * 25e-14 / 110:.2g} m2/s on" in well.arithmetic
    assert not [w for w in findings(cp("20 pA")) if "titration" in w]


CAMERA = """
[camera]
driver = "mock"
frame_rate = "2 Hz"
pixel_size = "4 nm"
dose_rate = "1 e/angstrom^2/s"
"""


@pytest.mark.parametrize(
    ("words", "severity"),
    [
        ('average = "400 ms"', OK),
        ('average = "1 s"', REFUSE),
        ('record = ["dE > 1 mV", "dt > 400 ms"]', OK),
        ('record = ["dE > 1 mV"]', WARN),
        ('record = ["dt > 1 s"]', WARN),
    ],
)
def test_thinning_that_would_hurt_the_means_of_frames_is_told(words, severity):
    filmed = HEAD + CAMERA
    told = found("readings that are stored", f"{words}\n{cp('20 pA')}", head=filmed)
    assert told.severity is severity
    unfilmed = found("readings that are stored", f"{words}\n{cp('20 pA')}")
    assert unfilmed.severity is OK
    assert not any("that are stored" in what for what in findings(cp("20 pA"), head=filmed))
