"""The experiment file: all errors at once, each with its line and what would do."""

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.check import refuse_unfit
from runner.experiment import Experiment, ExperimentError
from runner.problems import find_line

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "examples" / "lco_lipon_li.toml").read_text("utf-8")


def problems_of(text):
    with pytest.raises(ExperimentError) as refused:
        Experiment.loads(text, name="plan.toml")
    return refused.value


def changed(*pairs):
    text = TEXT
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


def test_the_example_is_what_it_says():
    experiment = Experiment.load(ROOT / "examples" / "lco_lipon_li.toml")
    assert experiment.title == "LCO | LiPON | Li, first charge"
    assert experiment.cell.area_m2 == pytest.approx(10e-12)
    assert experiment.cell.capacity_C == pytest.approx(12.4e-9, rel=0.01)
    assert [step.name for step in experiment.steps] == ["ocv", "cp", "ocv", "cp", "ocv"]
    assert [step.current_A for step in experiment.steps] == [0, 3e-11, 0, -3e-11, 0]
    assert experiment.longest_s == 270.0
    assert experiment.envelope.voltage_max_V == 4.3
    assert experiment.dose_limit_e_m2 == 5e22
    assert experiment.camera.dose_rate_e_m2_s == 5e19
    assert experiment.potentiostat.calibration is None
    assert experiment.text == TEXT


def test_currents_may_be_densities_or_rates():
    text = changed(('30 pA" }                   #', '0.3 mA/cm^2" } #'), ("-30 pA", "-C/2"))
    experiment = Experiment.loads(text)
    assert experiment.steps[1].current_A == pytest.approx(3e-11)
    assert experiment.steps[3].current_A == pytest.approx(-experiment.cell.capacity_C / 3600 / 2)


def test_all_errors_are_told_together_in_the_order_of_their_lines():
    error = problems_of(
        changed(
            ('width = "5 um"', 'width = "5,0 um"'),
            ("seed = 7", "sead = 7"),
            ('cp = { current = "30 pA" }', 'cp = { curent = "30 pA" }'),
            ('frame_rate = "5 Hz"', "frame_rate = 5"),
        )
    )
    text = str(error)
    assert text.startswith("plan.toml: 5 problems")
    lines = [problem.line for problem in error.problems]
    assert lines == sorted(lines)
    for problem in error.problems:
        assert problem.line > 0
        assert problem.key.rpartition(".")[2].partition("[")[0]
    assert "cell.width: '5,0 um' has a comma" in text
    assert "mock.sead: is not known here; did you mean seed?" in text
    assert "step[2].cp.curent: is not known here; did you mean current?" in text
    assert "camera.frame_rate: 5 has no unit" in text


@pytest.mark.parametrize(
    ("old", "new", "key", "says"),
    [
        ('["2.5 V", "4.3 V"]', '["4.3 V", "2.5 V"]', "limits.voltage", "lower first"),
        ('["2.5 V", "4.3 V"]', '["4.3 V"]', "limits.voltage", "a low and a high"),
        ('["2.5 V", "4.3 V"]', '["3 V", "4.3 V"]', "limits.voltage", "inside the cell"),
        ('["2.5 V", "4.3 V"]', '["-1 V", "4.3 V"]', "limits.voltage", "would allow 0 V"),
        ('window = ["2.8 V", "4.2 V"]', 'window = ["4.2 V"]', "cell.window", "a low and"),
        ('material = "LiCoO2"', 'material = "NMC"', "cell.working", "no layer"),
        ('thickness = "500 nm"', 'thickness = "0 nm"', "cell.working", "more than nothing"),
        ('depth = "2 um"', 'depth = "-2 um"', "cell.depth", "more than nothing"),
        (
            'depth = "2 um"',
            'depth = "90 nm"\ndepth_sigma = "90 nm"',
            "cell.depth_sigma",
            "less than the depth",
        ),
        ('current = "100 pA"', 'current = "10 pA"', "step[2].cp.current", "beyond"),
        ('current = "100 pA"', 'current = "0 pA"', "limits.current", "more than nothing"),
        ('cp = { current = "30 pA" }', 'cp = { current = "0 pA" }', "step[2].cp.current", "ocv"),
        ('"V > 4.2 V", "t > 120 s"', '"V > 4.2 V"', "step[2].until", "an end in time"),
        ('"V > 4.2 V", "t > 120 s"', '"t > 120 s"', "step[2].until", "an end in voltage"),
        ('"V < 2.8 V", "t > 80 s"', '"t > 80 s"', "step[4].until", "V < 2.8 V"),
        ('ocv = { for = "30 s" }', 'ocv = { for = "0 s" }', "step[3].ocv.for", "longer"),
        ('ocv = { for = "30 s" }', 'rest = "30 s"', "step[3].rest", "not known"),
        ('ocv = { for = "30 s" }', "", "step[3]", "exactly one technique"),
        ('frame_rate = "5 Hz"', 'frame_rate = "0 Hz"', "camera.frame_rate", "more than"),
        ('frame_rate = "5 Hz"', 'frame_rate = "5 Hz"\nheight = 9', "camera", "between 48"),
        ('dose_rate = "0.5', 'dose_rate = "-0.5', "camera.dose_rate", "negative"),
        ('resource = "mock" ', 'resource = "mock"\nnplc = 90 #', "potentiostat.nplc", "0.01"),
        (
            *('resource = "mock" ', 'resource = "mock"\nline_frequency = "55 Hz" #'),
            *("potentiostat.line_frequency", "50 Hz or 60 Hz"),
        ),
        ('dose = "500 e/angstrom^2"', 'dose = "0 e/Å²"', "limits.dose", "more than nothing"),
        ('title = "LCO', 'titel = "LCO', "titel", "did you mean title"),
        ("[mock] ", '[bus]\nbroker = "here"\n[mock] ', "bus.broker", "host and a port"),
        (
            *('driver = "mock"\nframe', 'driver = "stream"\nframe'),
            *("camera.port", "the driver stream needs it"),
        ),
        (
            *("[mock] ", '[bus]\nbroker = "em2:1883"\nusername = "a"\n[mock] '),
            *("bus", "in plain text; name a ca_file"),
        ),
        ('driver = "mock"\nframe', 'driver = "strem"\nframe', "camera.driver", "'stream'"),
        ('dose_rate = "0.5', 'data_port = 70000\ndose_rate = "0.5', "camera.data_port", "65535"),
        ('dose_rate = "0.5', 'exposure = "2 s"\ndose_rate = "0.5', "camera.exposure", "between"),
    ],
)
def test_what_cannot_be_is_refused_with_its_key(old, new, key, says):
    error = problems_of(changed((old, new)))
    told = [p for p in error.problems if p.key == key]
    assert told, str(error)
    assert says in told[0].what


def test_a_c_rate_needs_a_known_material():
    text = changed(("LiCoO2", "Unobtainium"), ('current = "30 pA"', 'current = "C/2"'))
    assert "a C-rate needs a capacity" in str(problems_of(text))
    known = Experiment.loads(changed(("LiCoO2", "Unobtainium")))
    assert math.isnan(known.cell.capacity_C)


def test_an_experiment_without_steps_is_none():
    text = TEXT[: TEXT.index("[[step]]")] + "\nstep = []\n"
    text = text.replace("[[track]]", "[[track]]")
    assert "step" in str(problems_of(text))


def test_a_dose_limit_needs_a_camera():
    start, stop = TEXT.index("[camera]"), TEXT.index("[mock]")
    error = problems_of(TEXT[:start] + TEXT[stop:])
    assert "no camera" in str(error)


def test_a_syntax_error_names_its_line():
    error = problems_of(changed(("[cell]", "[cell")))
    assert error.problems[0].line == TEXT[: TEXT.index("[cell]")].count("\n") + 1


def test_a_rule_on_images_of_a_track_that_is_there_may_be_run():
    found = Experiment.loads(changed(('"t > 120 s"', '"front.position > 400 nm", "t > 120 s"')))
    refuse_unfit(found)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"\xff\xfe\x00", "UTF-8"), (b"#" * 1_000_001, "too large"), (None, "cannot be read")],
)
def test_a_file_that_is_none_is_refused(tmp_path, content, says):
    path = tmp_path / "plan.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ExperimentError, match=says):
        Experiment.load(path)


def test_paths_start_at_the_experiment_file(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(TEXT.replace('# calibration = "holder.h5" ', 'calibration = "holder.h5" '))
    assert Experiment.load(path).potentiostat.calibration == tmp_path / "holder.h5"


def test_windows_line_ends_are_read_alike():
    assert Experiment.loads(TEXT.replace("\n", "\r\n")).steps == Experiment.loads(TEXT).steps


def test_bus_settings_are_read():
    text = changed(("[mock] ", '[bus]\nbroker = "127.0.0.1:1883"\nlab = "em2"\n[mock] '))
    bus = Experiment.loads(text).bus
    assert (bus.host, bus.port, bus.lab) == ("127.0.0.1", 1883, "em2")


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (("a", "b"), 2),
        (("t", 0, "x"), 4),
        (("t", 1, "x"), 6),
        (("t", 1), 5),
        (("a", "missing"), 1),
        (("nowhere",), 0),
        (("d", "e", "f"), 7),
    ],
)
def test_lines_are_found_by_their_keys(key, line):
    text = "[a]\nb = 1\n[[t]]\nx = 1\n[[t]]\nx = 2\n[d]\n"
    assert find_line(text, key) == line


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**9), count=st.integers(1, 6))
def test_a_mutated_file_is_read_or_refused_and_nothing_else(seed, count):
    rng = random.Random(seed)
    text = list(TEXT)
    for _ in range(count):
        place = rng.randrange(len(text))
        text[place] = rng.choice(["", "x", '"', "[", "=", "-", "9", ",", "\n", "é", "{"])
    try:
        Experiment.loads("".join(text))
    except ExperimentError as refused:
        assert str(refused)


def test_a_plan_that_only_rests_has_a_range_that_is_quick():
    from potentiostat.drivers.keithley6430 import RANGES

    rest = TEXT[: TEXT.index("[[step]]")] + '[[step]]\nocv = { for = "20 s" }\n'
    assert Experiment.loads(rest).range_A(RANGES) == 1e-10
    slow = tuple(r for r in RANGES if r.settling_s > 1)
    assert Experiment.loads(rest).range_A(slow) == 1e-12
    meters = tuple(replace(r, sources=r.full_scale_A > 1e-10) for r in RANGES)
    assert Experiment.loads(rest).range_A(meters) == 1e-9
    named = rest.replace('resource = "mock"', 'resource = "mock"\nrange = "100 pA"')
    assert Experiment.loads(named).range_A(RANGES) == 1e-10
    with pytest.raises(ValueError, match="of 1e-10 A only measures.*there is 1e-09, 1e-08"):
        Experiment.loads(named).range_A(meters)


def test_limits_of_ionic_charge_and_time_are_read_or_refused():
    more = 'charge = "8 nC"\ncharge_ionic = "6 nC"\ntime = "2 h"'
    envelope = Experiment.loads(changed(('charge = "8 nC"', more))).envelope
    assert (envelope.charge_ionic_max_C, envelope.time_max_s) == (6e-9, 7200.0)
    for name, text, says in (
        ("time", '"0 s"', "must be more than nothing, such as 2 h"),
        ("charge_ionic", '"3 V"', "'3 V' is a voltage"),
    ):
        assert says in str(
            problems_of(changed(('charge = "8 nC"', f'charge = "8 nC"\n{name} = {text}')))
        )
