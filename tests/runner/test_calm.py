"""Readings that are passed together: exactly those about which nothing is to be decided."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potentiostat.limits import Condition, Envelope, Seen, Watch
from potentiostat.records import SAMPLE_DTYPE, Status, readings_of
from runner.calm import Calm, Origin, calm_within
from runner.charge_count import ChargeCount
from runner.messages import HolderTerms

ENVELOPE = Envelope(voltage_min_V=2.5, voltage_max_V=4.3, current_max_A=1e-10, charge_max_C=8e-9)
ORIGIN = Origin(t_ns=10**9, charge_C=1e-9, charge_ionic_C=2e-9, half_C=0.5e-9)
SIZES = {"V": 1.0, "I": 1e-11, "t": 1.0, "Q": 1e-9, "Q_ionic": 1e-9, "Q_half": 1e-9, "Q_run": 1e-9}
QUANTITIES = [*SIZES, "|I|", "|Q|", "|Q_ionic|", "|Q_half|"]

conditions = st.lists(
    st.builds(
        lambda quantity, relation, value: Condition(
            quantity=quantity,
            relation=relation,
            value=value * SIZES[quantity.strip("|")],
            text="",
        ),
        st.sampled_from(QUANTITIES),
        st.sampled_from("<>"),
        st.floats(-5, 5),
    ),
    max_size=4,
)
readings = st.tuples(
    st.floats(2, 5),
    st.floats(-2e-10, 2e-10),
    st.floats(-1e-8, 1e-8),
    st.one_of(st.just(math.nan), st.floats(-1e-8, 1e-8)),
    st.integers(0, 10**10),
)


def met(rules, reading):
    voltage_V, current_A, charge_C, ionic_C, end_ns = reading
    seen = Seen(
        voltage_V=voltage_V,
        current_A=current_A,
        charge_C=charge_C - ORIGIN.charge_C,
        charge_ionic_C=ionic_C - ORIGIN.charge_ionic_C,
        charge_half_C=charge_C - ORIGIN.half_C,
        charge_run_C=charge_C,
        elapsed_s=(end_ns - ORIGIN.t_ns) / 1e9,
    )
    return Watch(rules).first_met(seen)


BEGUN_NS = 2 * 10**9
MORE_LIMITS = replace(ENVELOPE, charge_ionic_max_C=4e-9, time_max_s=3.0)


@pytest.mark.parametrize("envelope", [ENVELOPE, MORE_LIMITS])
@given(conditions, readings)
def test_a_reading_that_is_passed_breaks_and_meets_nothing(envelope, rules, reading):
    calm = calm_within(envelope, [(rule, ORIGIN) for rule in rules], begun_ns=BEGUN_NS)
    if calm is None or not calm.holds(*reading):
        return
    voltage_V, current_A, charge_C, ionic_C, end_ns = reading
    broken = envelope.violation(
        voltage_V=voltage_V,
        current_A=current_A,
        charge_C=charge_C,
        charge_ionic_C=ionic_C,
        elapsed_s=(end_ns - BEGUN_NS) / 1e9,
    )
    assert broken is None
    assert met(rules, reading) is None


@given(conditions, st.lists(readings, min_size=1, max_size=8))
def test_many_are_passed_where_each_is(rules, rows):
    calm = calm_within(ENVELOPE, [(rule, ORIGIN) for rule in rules])
    if calm is None:
        return
    *columns, end_ns = (np.array(column) for column in zip(*rows, strict=True))
    together = calm.holds_all(*columns, int(end_ns.max()))
    assert together == all(calm.holds(*row) for row in rows)


def test_what_is_plainly_within_is_passed():
    rule = Condition(quantity="V", relation=">", value=4.2, text="")
    late = Condition(quantity="t", relation=">", value=60.0, text="")
    calm = calm_within(ENVELOPE, [(rule, ORIGIN), (late, ORIGIN)])
    assert calm.holds(4.1, 2e-11, 1e-9, math.nan, 2 * 10**9)
    assert not calm.holds(4.2, 2e-11, 1e-9, math.nan, 2 * 10**9)
    assert not calm.holds(4.1, 2e-11, 1e-9, math.nan, 61 * 10**9)
    assert not calm.holds(math.nan, 2e-11, 1e-9, math.nan, 2 * 10**9)


def test_an_open_holder_has_no_limits_of_a_cell():
    calm = calm_within(None, [])
    assert calm == Calm()
    assert calm.holds(0.0, 1e-3, 1.0, math.nan, 0)


def test_a_rule_on_a_charge_that_is_not_known_stands_in_nobodys_way():
    rule = Condition(quantity="Q_ionic", relation=">", value=1e-9, text="")
    unknown = Origin(t_ns=0, charge_C=0.0, charge_ionic_C=math.nan, half_C=0.0)
    assert not calm_within(ENVELOPE, [(rule, ORIGIN)]).holds(3.9, 0.0, 0.0, math.nan, 0)
    assert met([rule], (3.9, 0.0, 0.0, math.nan, 0)) is None
    calm = calm_within(ENVELOPE, [(rule, unknown)])
    assert calm.charge_ionic_C == (-math.inf, math.inf)


@pytest.mark.parametrize("quantity", ["dV/dt", "|dV/dt|", "dI/dt", "|dI/dt|"])
def test_a_rule_on_a_slope_is_asked_of_every_reading(quantity):
    rule = Condition(quantity=quantity, relation="<", value=1.0, text="")
    assert calm_within(ENVELOPE, [(rule, ORIGIN)]) is None


def test_limits_on_slopes_are_asked_of_every_reading():
    from dataclasses import replace

    assert calm_within(replace(ENVELOPE, voltage_rate_max_V_s=1.0), []) is None
    assert calm_within(replace(ENVELOPE, current_rate_max_A_s=1.0), []) is None


# --- charge of many readings --------------------------------------------------------------------


def samples(count, seed, first_ns=0):
    rng = np.random.default_rng(seed)
    rows = np.zeros(count, SAMPLE_DTYPE)
    rows["read_start_ns"] = first_ns + 10**18 + np.cumsum(rng.integers(1, 10**8, count))
    rows["read_end_ns"] = rows["read_start_ns"] + rng.integers(1, 10**7, count)
    rows["voltage_V"] = 3.9 + 0.01 * rng.standard_normal(count)
    rows["current_A"] = 2e-11 + 1e-13 * rng.standard_normal(count)
    return rows


@given(st.integers(1, 30), st.integers(0, 1000), st.booleans(), st.booleans())
def test_charge_is_counted_alike_one_by_one_and_together(count, seed, with_holder, told):
    holder = HolderTerms(capacitance_F=1.5e-10, conductance_S=1e-12, offset_A=1e-13)
    counts = [ChargeCount(holder if with_holder else None) for _ in range(2)]
    first = samples(1, seed, first_ns=-(10**9))
    first["status"] = int(Status.TOLD) if told else 0
    rows = samples(count, seed + 1)
    for each in counts:
        each.take(readings_of(first)[0])
    one_by_one = []
    for reading in readings_of(rows):
        counts[0].take(reading)
        one_by_one.append((counts[0].instrument_C, counts[0].ionic_C))
    ahead = counts[1].ahead(rows)
    assert counts[1].instrument_C == 0.0
    counts[1].settle(ahead)
    together = list(zip(ahead.instrument_C.tolist(), ahead.ionic_C.tolist(), strict=True))
    np.testing.assert_array_equal(together, one_by_one)
    following = readings_of(samples(1, seed + 2, first_ns=10**12))[0]
    for each in counts:
        each.take(following)
    np.testing.assert_array_equal(
        [counts[0].instrument_C, counts[0].ionic_C], [counts[1].instrument_C, counts[1].ionic_C]
    )


@pytest.mark.parametrize("status", [Status.POTENTIOSTATIC, Status.TOLD, Status.SETTLING])
def test_readings_with_a_flag_are_counted_one_by_one(status):
    count = ChargeCount(None)
    assert count.ahead(samples(3, 1)) is None  # nothing was taken before
    count.take(readings_of(samples(1, 0, first_ns=-(10**9)))[0])
    rows = samples(3, 1)
    assert count.ahead(rows) is not None
    rows["status"][1] = int(status)
    assert count.ahead(rows) is None
