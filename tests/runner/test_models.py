"""Ranges are those of the model that a plan names, and of no other."""

import pytest

from potentiostat.records import Identity
from potentiostat.registry import potentiostat_class, potentiostat_names
from runner.cell import InstrumentUnavailable
from runner.check import Severity, check
from runner.conduct import _refuse_other_model
from runner.experiment import Experiment

TEXT = """
title = "models"
[cell]
stack = "Au | LiCoO2 | LiPON | Li | Cu"
width = "100 um"
depth = "100 um"
working = { material = "LiCoO2", thickness = "500 nm" }
window = ["2.8 V", "4.2 V"]
[potentiostat]
driver = "DRIVER"
resource = "TCPIP::10.0.0.5::5025::SOCKET"
MODEL
[limits]
voltage = ["2.5 V", "4.3 V"]
current = "100 nA"
charge = "1 mC"
[[step]]
cp = { current = "5 nA" }
until = ["V > 4.2 V", "t > 100 s"]
"""


def plan(driver, model=""):
    named = f'model = "{model}"' if model else ""
    return Experiment.loads(TEXT.replace("DRIVER", driver).replace("MODEL", named))


def of(driver, model=""):
    return {f.what: f for f in check(plan(driver, model)).findings}


@pytest.mark.parametrize("name", potentiostat_names())
def test_every_model_has_ranges_that_the_driver_knows(name):
    driver = potentiostat_class(name)
    assert driver.models
    every = {r.full_scale_A for r in driver.ranges}
    for ranges in driver.models.values():
        assert ranges
        assert {r.full_scale_A for r in ranges} <= every
    assert any(tuple(r) == tuple(driver.ranges) for r in driver.models.values())


@pytest.mark.parametrize(
    ("driver", "model", "range_text"),
    [
        ("keysight_b2900", "B2911A", "10 nA"),
        ("keysight_b2900", "B2901A", "100 nA"),
        ("keithley2450", "2450", "10 nA"),
        ("keithley2450", "2460", "1 µA"),
        ("palmsens_methodscript", "EmStat4 LR", "10 nA"),
        ("palmsens_methodscript", "EmStat4 HR", "100 nA"),
    ],
)
def test_the_range_is_one_of_the_model_that_is_named(driver, model, range_text):
    found = of(driver, model)
    assert found["current range, locked for the run"].arithmetic == range_text
    assert found["model of the instrument"].severity is Severity.OK


def test_where_the_models_differ_it_is_asked_for():
    asked = of("keysight_b2900")["model of the instrument"]
    assert asked.severity is Severity.WARN
    assert asked.arithmetic.startswith("B2901A, B2901B, B2902A, B2902B has no range of 10 nA")
    assert 'model = "B2911A"' in asked.arithmetic
    assert "model of the instrument" not in of("keithley2600")


def test_a_model_of_another_driver_is_refused():
    refused = of("keysight_b2900", "2636B")["model of the instrument"]
    assert refused.severity is Severity.REFUSE
    assert "'2636B' is none of this driver's: B2901A" in refused.arithmetic


def test_another_model_than_the_one_that_was_checked_is_refused():
    answered = Identity(maker="Keysight", model="B2901A", serial="1", firmware="1", raw="")
    _refuse_other_model(plan("keysight_b2900"), answered)
    _refuse_other_model(plan("keysight_b2900", "B2901A"), answered)
    with pytest.raises(InstrumentUnavailable, match="is a B2901A, and the plan is for a B2911A"):
        _refuse_other_model(plan("keysight_b2900", "B2911A"), answered)
