"""Which readings are stored: charge stays true, means have the sigma of a mean."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from correlate.ledger import Accuracy, Counted, charge_ledger
from potentiostat.records import SAMPLE_DTYPE, Status
from potentiostat.segments import Change, Record
from potentiostat.technique import Level, chronopotentiometry, linear_sweep
from runner.messages import Block
from runner.rows import Thinner, session_rows
from sync.align import cumulative_charge, thinned_intervals

EACH_NS = 60_000_000
APERTURE_S = 0.02
SIGMA_A = 1e-14


def step_with(*changes, average_s=0.0, sweep=False):
    from dataclasses import replace

    step = (
        linear_sweep(Level(volts=3.9), Level(volts=4.0), 1e-2, window_V=1.8)
        if sweep
        else chronopotentiometry(1e-11, ())
    )
    return replace(step, record=Record(changes=tuple(changes), average_s=average_s))


def block(current, *, voltage=3.9, first=0, step=1, status=0, setpoint=1e-11, charge=None):
    """Readings of a current each 60 ms, with the charge counted by trapezia."""
    current = np.asarray(current, float)
    samples = np.zeros(len(current), SAMPLE_DTYPE)
    samples["read_start_ns"] = (first + np.arange(len(current))) * EACH_NS
    samples["read_end_ns"] = samples["read_start_ns"] + 50_000_000
    samples["device_time_s"] = samples["read_start_ns"] / 1e9
    samples["aperture_s"] = APERTURE_S
    samples["voltage_V"], samples["current_A"] = voltage, current
    samples["voltage_sigma_V"], samples["current_sigma_A"] = 1e-5, SIGMA_A
    samples["setpoint"], samples["status"] = setpoint, status
    if charge is None:
        charge = counted(current)
    return Block(sequence=0, first=0, samples=samples, step=step, charge_C=charge, exchanges=())


def counted(current):
    middle = np.arange(len(current)) * EACH_NS
    return cumulative_charge(middle.astype(np.int64), np.asarray(current, float))


def store(thinner, blocks, step):
    kept = [thinner.take(session_rows(b, 0), step) for b in blocks]
    return np.concatenate([*kept, thinner.flush()])


def one_by_one(whole):
    for i in range(len(whole.samples)):
        yield Block(
            sequence=i,
            first=i,
            samples=whole.samples[i : i + 1],
            step=whole.step,
            charge_C=whole.charge_C[i : i + 1],
            exchanges=(),
        )


def charge_of(rows):
    thinned = thinned_intervals(rows["averaged"], rows["left_out"])
    return cumulative_charge(
        rows["t_ns"], rows["current"], counted_C=rows["charge"], thinned=thinned
    )


def test_without_a_rule_every_reading_is_stored_as_it_is():
    rows = store(Thinner(), one_by_one(block(np.linspace(0, 1e-11, 9))), chronopotentiometry(1, ()))
    assert len(rows) == 9
    assert set(rows["averaged"]) == {1}
    assert set(rows["left_out"]) == {0}
    assert not thinned_intervals(rows["averaged"], rows["left_out"]).any()


RECORDS = st.one_of(
    st.builds(
        Record,
        changes=st.lists(
            st.builds(
                Change,
                quantity=st.sampled_from(["V", "I", "Q", "t"]),
                more_than=st.sampled_from([1e-13, 5e-12, 1e-3, 0.2, 5.0]),
            ),
            min_size=1,
            max_size=3,
        ).map(tuple),
    ),
    st.builds(Record, average_s=st.floats(0.01, 3.0)),
)


@settings(deadline=None, max_examples=120)
@given(
    record=RECORDS,
    seed=st.integers(0, 10**6),
    count=st.integers(2, 60),
    size=st.integers(1, 7),
)
def test_no_reading_and_no_charge_is_lost_whatever_is_stored(record, seed, count, size):
    from dataclasses import replace

    rng = np.random.default_rng(seed)
    current = 1e-11 + 5e-12 * rng.standard_normal(count)
    voltage = 3.9 + 1e-3 * rng.standard_normal(count).cumsum()
    status = np.where(rng.random(count) < 0.1, int(Status.SETTLING), 0)
    whole = block(current, voltage=voltage, status=status)
    parts = [
        Block(
            sequence=0,
            first=0,
            samples=whole.samples[i : i + size],
            step=1,
            charge_C=whole.charge_C[i : i + size],
            exchanges=(),
        )
        for i in range(0, count, size)
    ]
    step = replace(chronopotentiometry(1e-11, ()), record=record)
    rows = store(Thinner(), parts, step)
    assert np.sum(np.maximum(rows["averaged"], 1) + rows["left_out"]) == count
    assert np.all(np.diff(rows["t_ns"]) > 0)
    # Each row carries the charge up to its own time, and the first and the last are there.
    every = session_rows(whole, 0)
    assert (rows["t_ns"][0], rows["t_ns"][-1]) == (every["t_ns"][0], every["t_ns"][-1])
    origin = every["t_ns"][0]
    at = np.interp(rows["t_ns"] - origin, every["t_ns"] - origin, every["charge"])
    assert rows["charge"] == pytest.approx(at, rel=1e-9, abs=1e-24)
    assert charge_of(rows) == pytest.approx(rows["charge"], rel=1e-9, abs=1e-24)
    # What settles is stored as it was read.
    kept = rows["status"] == int(Status.SETTLING)
    assert kept.sum() == (status != 0).sum()
    assert set(rows["averaged"][kept]) <= {1}


@pytest.mark.parametrize(
    ("change", "stored"),
    [
        (Change(quantity="t", more_than=0.29), [0, 5, 10, 15, 19]),
        (Change(quantity="V", more_than=0.0095), [0, 10, 19]),
        (Change(quantity="I", more_than=4.5e-13), [0, 5, 10, 15, 19]),
        (Change(quantity="Q", more_than=1.0), [0, 19]),
    ],
)
def test_a_reading_is_stored_once_it_is_far_enough_from_the_last_one(change, stored):
    whole = block(1e-11 + 1e-13 * np.arange(20), voltage=3.9 + 1e-3 * np.arange(20))
    rows = store(Thinner(), one_by_one(whole), step_with(change))
    assert (rows["read_start_ns"] // EACH_NS).tolist() == stored
    assert rows["left_out"].tolist() == [0, *(np.diff(stored) - 1)]


def test_any_of_several_rules_is_enough():
    whole = block(np.full(20, 1e-11), voltage=3.9 + 1e-3 * np.arange(20))
    step = step_with(Change(quantity="t", more_than=100.0), Change(quantity="V", more_than=0.0045))
    rows = store(Thinner(), one_by_one(whole), step)
    assert (rows["read_start_ns"] // EACH_NS).tolist() == [0, 5, 10, 15, 19]


def test_a_mean_has_the_sigma_and_the_aperture_of_a_mean():
    rng = np.random.default_rng(5)
    current = 1e-11 + SIGMA_A * rng.standard_normal(42)
    rows = store(Thinner(), one_by_one(block(current)), step_with(average_s=1.2))
    first, *means, last = rows
    assert first["averaged"] == last["averaged"] == 1
    assert [m["averaged"] for m in means] == [20, 20]
    for mean, part in zip(means, (current[1:21], current[21:41]), strict=True):
        assert mean["current"] == pytest.approx(part.mean(), rel=1e-12)
        assert mean["current_sigma"] == pytest.approx(SIGMA_A / np.sqrt(20), rel=1e-9)
        assert mean["aperture_s"] == pytest.approx(19 * 0.06 + APERTURE_S)
        # The instrument's stamp and half the aperture lead to the middle.
        middle_s = mean["device_time_s"] + mean["aperture_s"] / 2
        assert middle_s == pytest.approx((mean["t_ns"] - 25e6) / 1e9 + APERTURE_S / 2)


def test_readings_that_were_lost_on_the_way_are_counted_with_those_left_out():
    for step, most in (
        (step_with(Change(quantity="t", more_than=0.29)), 3 + 3),
        (step_with(average_s=0.6), 3),
    ):
        rows = session_rows(block(np.full(20, 1e-11)), 0)
        rows["left_out"][17] = 3
        thinner = Thinner()
        kept = np.concatenate([thinner.take(rows, step), thinner.flush()])
        assert kept["left_out"].sum() + np.maximum(kept["averaged"], 1).sum() == 23
        assert kept["left_out"].max() == most


def test_both_sides_of_a_change_are_stored():
    step = step_with(Change(quantity="t", more_than=100.0))
    thinner = Thinner()
    blocks = [
        *one_by_one(block(np.full(5, 1e-11))),
        *one_by_one(block(np.full(5, 2e-11), first=5, setpoint=2e-11)),
        *one_by_one(block(np.full(5, 2e-11), first=10, setpoint=2e-11, step=2)),
    ]
    rows = store(thinner, blocks, step)
    assert (rows["read_start_ns"] // EACH_NS).tolist() == [0, 4, 5, 9, 10, 14]
    plain = thinner.take(session_rows(block(np.full(3, 0.0), first=15, step=-1), 0), None)
    assert len(plain) == 3


def test_what_is_held_back_comes_when_the_next_step_stores_all():
    thinner = Thinner()
    step = step_with(average_s=100.0)
    kept = [thinner.take(session_rows(b, 0), step) for b in one_by_one(block(np.full(6, 1e-11)))]
    assert sum(len(rows) for rows in kept) == 1
    rows = thinner.take(session_rows(block([0.0], first=6, step=2), 0), chronopotentiometry(1, ()))
    assert rows["averaged"].tolist() == [4, 1, 1]
    assert rows["step"].tolist() == [1, 1, 2]


def test_a_sweep_is_thinned_although_its_set_point_moves():
    level = 3.9 + 6e-4 * np.arange(20)
    whole = block(
        np.full(20, 1e-11), voltage=level, setpoint=level, status=int(Status.POTENTIOSTATIC)
    )
    rows = store(
        Thinner(), one_by_one(whole), step_with(Change(quantity="V", more_than=0.0029), sweep=True)
    )
    assert (rows["read_start_ns"] // EACH_NS).tolist() == [0, 5, 10, 15, 19]
    rows = store(Thinner(), one_by_one(whole), step_with(average_s=0.3, sweep=True))
    assert rows["setpoint"] == pytest.approx(rows["voltage"])
    assert max(rows["averaged"]) == 5


# --- what the ledger makes of it ---------------------------------------------------------------

ACCURACY = Accuracy(gain_ratio=0.0, offset_A=0.0)


def ledger(rows):
    thinned = thinned_intervals(rows["averaged"], rows["left_out"])
    single = rows["left_out"] + 1.0
    return charge_ledger(
        rows["t_ns"],
        rows["current"],
        rows["voltage"],
        current_sigma_A=rows["current_sigma"],
        voltage_sigma_V=rows["voltage_sigma"],
        accuracy=ACCURACY,
        holder=None,
        counted=Counted(
            charge_C=rows["charge"],
            thinned=thinned,
            readings=single - 1 + np.maximum(rows["averaged"], 1),
            single=single,
        )
        if thinned.any()
        else None,
    ).columns


@pytest.mark.parametrize(
    "step", [step_with(Change(quantity="t", more_than=1.0)), step_with(average_s=1.0)]
)
def test_the_ledger_of_thinned_readings_is_that_of_all_of_them(step):
    """A current that swings between two stored readings, which trapezia would not see."""
    rng = np.random.default_rng(7)
    n = 400
    current = 1e-11 * (1 + np.sin(np.arange(n) / 4.0) ** 2) + SIGMA_A * rng.standard_normal(n)
    whole = block(current)
    every = ledger(session_rows(whole, 0))
    rows = store(Thinner(), one_by_one(whole), step)
    assert len(rows) < n / 8
    found = ledger(rows)
    total = every["instrument"][-1]
    assert found["instrument"][-1] == pytest.approx(total, rel=1e-9)
    blind = cumulative_charge(rows["t_ns"], rows["current"])[-1]
    assert abs(blind - total) > 20 * abs(found["instrument"][-1] - total)


@pytest.mark.parametrize(
    "step", [step_with(Change(quantity="t", more_than=1.0)), step_with(average_s=1.0)]
)
def test_the_sigma_of_a_thinned_charge_is_that_of_all_readings(step):
    rng = np.random.default_rng(7)
    whole = block(1e-11 + SIGMA_A * rng.standard_normal(400))
    every = ledger(session_rows(whole, 0))["instrument_sigma"][-1]
    found = ledger(store(Thinner(), one_by_one(whole), step))["instrument_sigma"][-1]
    assert found == pytest.approx(every, rel=0.15)
