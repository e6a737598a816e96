"""Which simulated instrument a name on the command line means."""

import asyncio
import re

import pytest

from mocks.instruments import driver_names, simulated_models, simulated_smu
from mocks.pace import LockstepPace
from mocks.scenario import load
from mocks.world import World
from potentiostat.registry import potentiostat_class
from runner.lab import LabError
from runner.serving import _driver_of


@pytest.mark.parametrize("driver", driver_names())
def test_a_simulated_instrument_is_found_by_its_driver_and_by_its_model(driver):
    simulated = simulated_models()
    own = simulated[driver]
    assert own in potentiostat_class(driver).models
    assert {_driver_of(name, simulated) for name in (driver, own, own.lower())} == {driver}


@pytest.mark.parametrize("driver", [d for d in driver_names() if d != "palmsens_methodscript"])
def test_it_is_the_model_that_it_says_it_is(driver):
    world = World(load("lco_lipon_li"), seed=1, start_ns=0)
    smu = simulated_smu(driver, world, LockstepPace(world, lambda _now_ns: None))
    answer = asyncio.run(smu.handle("*IDN?"))
    assert (
        answer.split(",")[1]
        .upper()
        .removeprefix("MODEL ")
        .strip()
        .endswith(simulated_models()[driver])
    )


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("2460", 'no simulated 2460; of its family there is 2450: --model "2450"'),
        ("2635A", 'there is 2636B: --model "2636B", with the driver keithley2600'),
        ("B2985B", 'there is B2987A: --model "B2987A", with the driver keysight_b298x'),
        ("emstat pico", 'there is EmStat4 HR: --model "EmStat4 HR"'),
        ("2182", "there is no simulated '2182'; there is keithley2400"),
        ("0", "there is no simulated '0'"),
        ("", "there is no simulated ''"),
    ],
)
def test_another_model_of_a_family_is_told_which_one_there_is(model, says):
    with pytest.raises(LabError, match=re.escape(says)):
        _driver_of(model, simulated_models())
