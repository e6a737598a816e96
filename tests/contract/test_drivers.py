"""What every registered driver owes to those who use it."""

import asyncio
import inspect
from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest

from cameras.errors import CameraLost
from cameras.options import CameraOptions
from cameras.protocol import FrameSource
from cameras.registry import camera_class, camera_names
from potentiostat.errors import UnsafeRequest
from potentiostat.protocol import Potentiostat, SafeState, TriggerLines
from potentiostat.registry import potentiostat_class, potentiostat_names
from potentiostat.safety import hazards_of
from potentiostat.thermometer import Thermometer


class Nobody:
    """A link that nobody may use: to be made sends nothing."""

    resource = "nobody"


potentiostats = pytest.mark.parametrize("name", potentiostat_names())
cameras = pytest.mark.parametrize("name", camera_names())


def methods(protocol):
    plain = {"__aenter__", "__aexit__"}
    return [
        name
        for name, member in vars(protocol).items()
        if inspect.isfunction(member) and (not name.startswith("_") or name in plain)
    ]


def test_there_is_something_to_check():
    assert "keithley6430" in potentiostat_names()
    assert "stream" in camera_names()
    assert {"connect", "apply", "read", "ensure_safe", "close"} <= set(methods(Potentiostat))
    assert methods(Thermometer) == ["read_temperature"]
    assert any(potentiostat_class(name).thermometer is not None for name in potentiostat_names())
    assert {"start", "stop", "frames", "exchange_clock", "__aenter__"} <= set(methods(FrameSource))


def parameters(function):
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@potentiostats
@pytest.mark.parametrize("method", methods(Potentiostat))
def test_a_potentiostat_has_each_method_as_the_protocol_says(name, method):
    found = getattr(potentiostat_class(name), method)
    assert parameters(found) == parameters(getattr(Potentiostat, method))
    assert not inspect.iscoroutinefunction(found)


@potentiostats
def test_a_potentiostat_names_its_model_ranges_and_off_states(name):
    driver = potentiostat_class(name)
    for member in Potentiostat.__annotations__:
        assert hasattr(driver, member)
    assert isinstance(driver.model, str)
    assert driver.model


@potentiostats
def test_ranges_rise_and_can_be(name):
    ranges = potentiostat_class(name).ranges
    assert ranges
    assert all(a.full_scale_A < b.full_scale_A for a, b in pairwise(ranges))
    for each in ranges:
        assert 0 < each.resolution_A < each.full_scale_A
        assert 0 <= each.gain_ratio < 0.1
        assert 0 <= each.offset_A < each.full_scale_A
        assert each.settling_s >= 0
        assert np.isfinite(each.settling_s)


@potentiostats
def test_a_potentiostat_rests_where_the_table_of_hazards_allows(name):
    driver = potentiostat_class(name)
    row = hazards_of(driver.model)
    assert row is not None
    assert driver.off_states
    assert all(isinstance(state, SafeState) for state in driver.off_states)
    assert SafeState.S1 in driver.off_states
    assert set(driver.off_states) <= set(row.rest_states)


def test_the_6430_offers_no_high_impedance():
    assert SafeState.S2 not in potentiostat_class("keithley6430").off_states
    assert SafeState.S2 not in hazards_of("6430").rest_states


@potentiostats
def test_a_potentiostat_measures_a_temperature_or_says_that_it_does_not(name):
    driver = potentiostat_class(name)
    spec = driver.thermometer
    for method in methods(Thermometer):
        assert hasattr(driver, method) is (spec is not None)
        if spec is not None:
            found = getattr(driver, method)
            assert parameters(found) == parameters(getattr(Thermometer, method))
            assert not inspect.iscoroutinefunction(found)
    if spec is not None:
        assert spec.sensor
        assert 0 < spec.low_K < spec.high_K < np.inf
        assert 0 < spec.sigma_K < spec.error_K < spec.high_K - spec.low_K
        assert spec.holds(spec.low_K)
        assert not any(spec.holds(v) for v in (np.nan, np.inf, spec.low_K - 1, spec.high_K + 1))


@potentiostats
def test_a_potentiostat_is_made_from_a_link_and_a_clock(name):
    first, *others = inspect.signature(potentiostat_class(name)).parameters.values()
    assert first.name == "link"
    required = {p.name for p in others if p.default is inspect.Parameter.empty}
    assert required == {"now_ns"}


def lines_of(driver, count):
    return dict(zip(("exposure_in", "mark_out"), driver.trigger_lines[:count], strict=False))


@potentiostats
def test_a_potentiostat_is_made_for_every_block_and_line_that_it_has(name):
    driver = potentiostat_class(name)
    assert driver.largest_block >= 1
    assert len(set(driver.trigger_lines)) == len(driver.trigger_lines)
    # At the shortest integration: a lease of the instrument's own may not bear longer ones.
    assert driver(Nobody(), now_ns=int, nplc=0.01, block=driver.largest_block) is not None
    for count in range(3):
        lines = TriggerLines(**lines_of(driver, count))
        assert driver(Nobody(), now_ns=int, lines=lines) is not None
    for line in driver.trigger_lines:
        assert driver(Nobody(), now_ns=int, lines=TriggerLines(exposure_in=line)) is not None


@potentiostats
def test_a_potentiostat_refuses_a_block_or_a_line_that_it_has_not(name):
    driver = potentiostat_class(name)
    for block in (0, -1, driver.largest_block + 1):
        with pytest.raises(UnsafeRequest, match=driver.model):
            driver(Nobody(), now_ns=int, block=block)
    for line in {0, max(driver.trigger_lines, default=0) + 1}:
        for lines in (TriggerLines(exposure_in=line), TriggerLines(mark_out=line)):
            with pytest.raises(UnsafeRequest, match=driver.model):
                driver(Nobody(), now_ns=int, lines=lines)


@cameras
@pytest.mark.parametrize("method", methods(FrameSource))
def test_a_camera_has_each_method_as_the_protocol_says(name, method):
    found, wanted = getattr(camera_class(name), method), getattr(FrameSource, method)
    assert parameters(found) == parameters(wanted)
    if method == "frames":
        assert inspect.isasyncgenfunction(found)
    else:
        assert inspect.iscoroutinefunction(found)


@cameras
def test_a_camera_describes_itself_by_a_property(name):
    assert isinstance(inspect.getattr_static(camera_class(name), "info"), property)


@cameras
def test_a_camera_is_made_from_options_and_a_clock(name):
    driver = camera_class(name)
    asked = CameraOptions(
        port=1, control_port=2, data_port=3, path="frames", pattern="*.mib", node="detector"
    )
    assert driver.from_options(asked, now_ns=int) is not None
    assert set(driver.needs) <= {field.name for field in fields(CameraOptions)}
    assert isinstance(driver.has_clock, bool)


@cameras
async def test_a_camera_without_a_clock_says_so(name):
    driver = await asyncio.to_thread(camera_class, name)
    if not driver.has_clock:
        with pytest.raises(CameraLost, match="clock"):
            await driver.from_options(CameraOptions(), now_ns=int).exchange_clock()
