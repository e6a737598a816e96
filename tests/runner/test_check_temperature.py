"""What a check says of limits and rules of a temperature."""

import json

import pytest
from click.testing import CliRunner

from potentiostat.registry import potentiostat_class, potentiostat_names
from runner.check import Severity, check, refuse_unfit
from runner.cli import main
from runner.experiment import Experiment, ExperimentError
from runner.guardian_settings import guardian_settings

TEXT = """title = "warm"
[cell]
stack = "Au | LiCoO2 | LiPON | Li | Cu"
width = "5 um"
depth = "2 um"
working = { material = "LiCoO2", thickness = "500 nm" }
window = ["2.8 V", "4.2 V"]
[potentiostat]
driver = "DRIVER"
resource = "mock"
WIRED
[limits]
voltage = ["2.5 V", "4.3 V"]
current = "90 pA"
charge = "8 nC"
LIMIT
[[step]]
cp = { current = "30 pA" }
until = ["V > 4.2 V", "t > 60 s"RULE]
"""
WIRED, LIMIT, RULE = "thermocouple = true", 'temperature = "330 K"', ', "T > 45 degC"'


def plan(driver="keysight_b298x", *, wired="", limit="", rule=""):
    text = TEXT
    for old, new in (("DRIVER", driver), ("WIRED", wired), ("LIMIT", limit), ("RULE", rule)):
        text = text.replace(old, new)
    return Experiment.loads(text)


@pytest.mark.parametrize(
    ("written", "low_K", "high_K"),
    [
        ('temperature = "330 K"', float("-inf"), 330.0),
        ('temperature = ["250 K", "330 K"]', 250.0, 330.0),
        ('temperature = ["-10 degC", "60 degC"]', 263.15, 333.15),
        ("", float("-inf"), float("inf")),
    ],
)
def test_a_limit_is_one_temperature_or_two(written, low_K, high_K):
    envelope = plan(wired=WIRED, limit=written).envelope
    assert (envelope.temperature_min_K, envelope.temperature_max_K) == (low_K, high_K)
    assert envelope.limits_temperature is bool(written)


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ('temperature = "60 C"', "line 16, limits.temperature: '60 C' is in C, which is coulomb"),
        ("temperature = 330", "limits.temperature: 330 has no unit; write for example 298 K"),
        ('temperature = ["330 K", "250 K"]', "runs from 330 to 250 K; write the lower first"),
        ('temperature = ["330 K"]', "is neither one temperature nor a list of two, such as"),
        ('temperature = "330 V"', "is a voltage; this field is a temperature"),
        ('temperatur = "330 K"', "did you mean temperature?"),
    ],
)
def test_a_limit_that_is_none_is_refused_with_its_line(written, says):
    with pytest.raises(ExperimentError) as refused:
        plan(wired=WIRED, limit=written)
    assert says in str(refused.value)


def without():
    return [n for n in potentiostat_names() if potentiostat_class(n).thermometer is None]


@pytest.mark.parametrize("driver", without())
def test_a_model_that_measures_none_is_refused_and_one_that_does_is_named(driver):
    with pytest.raises(ExperimentError) as refused:
        refuse_unfit(plan(driver, wired=WIRED, limit=LIMIT, rule=RULE))
    why = f"a {potentiostat_class(driver).model} measures no temperature; keysight_b298x does"
    for place in (
        "line 11, potentiostat.thermocouple: a thermocouple",
        "line 16, limits.temperature: limit of the temperature",
        "line 19, step[1].until: step 1: T > 45 degC",
    ):
        assert f"{place}: {why}" in str(refused.value)


@pytest.mark.parametrize("asked", [{"limit": LIMIT}, {"rule": RULE}])
def test_a_thermocouple_that_is_not_named_is_asked_for(asked):
    with pytest.raises(ExperimentError, match="write thermocouple = true under .potentiostat."):
        refuse_unfit(plan(**asked))


@pytest.mark.parametrize(
    "asked",
    [
        {"limit": 'temperature = "900 K"'},
        {"limit": 'temperature = ["77 K", "300 K"]'},
        {"rule": ', "T < 77 K"'},
    ],
)
def test_a_temperature_that_is_never_seen_is_refused(asked):
    with pytest.raises(ExperimentError, match="K is never seen; the type K thermocouple has 248"):
        refuse_unfit(plan(wired=WIRED, **asked))


def test_what_can_be_measured_is_shown_with_its_uncertainty():
    findings = check(plan(wired=WIRED, limit=LIMIT, rule=RULE)).findings
    told = {f.what: f for f in findings if "K" in f.arithmetic.split()}
    assert told["thermometer"].arithmetic.startswith("type K thermocouple, 248.15 to 423.15 K")
    assert told["limit of the temperature"].arithmetic == "330 K, known to ± 1.7 K (1 sigma)"
    assert told["step 1: T > 45 degC"].arithmetic.startswith("318.15 K, known to")
    assert all(f.severity is Severity.OK for f in told.values())


def test_only_a_cell_is_asked_about_its_temperature():
    experiment = plan(wired=WIRED)
    lab = type("L", (), {"potentiostat_resource": "x", "clock": type("C", (), {"spec": None})})
    lab.clock.spec = type("S", (), {"lockstep": False})
    assert guardian_settings(experiment, lab).asks_temperature
    assert not guardian_settings(experiment, lab, cell_attached=False).asks_temperature
    assert not guardian_settings(plan(), lab).asks_temperature


def test_the_table_of_instruments_says_who_measures_a_temperature():
    result = CliRunner().invoke(main, ["instruments", "--json"])
    assert result.exit_code == 0
    rows = json.loads(result.stdout.strip().splitlines()[-1])
    rows = rows if isinstance(rows, list) else next(iter(rows.values()))
    specs = {row["driver"]: row["thermometer"] for row in rows}
    assert {name for name, spec in specs.items() if spec is None} == set(without())
    assert specs["keysight_b298x"]["sensor"] == "type K thermocouple"
