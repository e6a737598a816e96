"""A calibration as a file: its age, its noise by range, and files of before."""

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from potentiostat.calibration import HolderCalibration
from potentiostat.noise_record import noise_record
from potentiostat.records import SAMPLE_DTYPE, RangeSpec, Status
from runner.calibrate import (
    NOISE_BUDGET_S,
    NOISE_S,
    CalibrationSummary,
    _noise,
    _rests,
    render_calibration,
)
from runner.check import Severity, check
from runner.experiment import Experiment
from runner.holder_record import (
    VALID_FOR_S,
    HolderRecord,
    calibration_from,
    in_range,
    noise_tables,
    range_name,
)
from session.calibration_file import write_calibration

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
CALIBRATION = HolderCalibration(
    capacitance_F=150e-12,
    capacitance_sigma_F=1e-13,
    conductance_S=1e-12,
    conductance_sigma_S=1e-15,
    dielectric_F=3e-12,
    dielectric_sigma_F=1e-14,
    dielectric_tau_s=15.0,
    offset_A=19e-15,
    offset_sigma_A=4e-16,
    noise_A=7e-15,
    chi2=1.0,
    range_A=1e-10,
    gain_sigma_ratio=1e-3,
)
EXAMPLE = Path(__file__).parents[2] / "examples" / "lco_lipon_li.toml"


def noise(range_A=1e-11, *, mean_A=5e-15, sigma_A=2e-15, stated_A=2e-15):
    current = np.random.default_rng(1).normal(mean_A, sigma_A, 400)
    return noise_record(
        np.arange(400) * 0.047,
        current,
        stated_sigma_A=np.full(400, stated_A),
        range_A=range_A,
    )


def record(**changes):
    return HolderRecord(
        **{
            "calibration": CALIBRATION,
            "columns": {"voltage": np.zeros(3)},
            "source": "a test",
            "tables": noise_tables([noise(1e-11), noise(1e-10, mean_A=2e-14)]),
            "measured_at": NOW,
        }
        | changes
    )


def test_a_record_comes_back_from_its_file(tmp_path):
    path = tmp_path / "holder.h5"
    record(valid_for_s=3600.0).write(path, overwrite=False)
    found = HolderRecord.read(path)
    assert found.calibration == CALIBRATION
    assert found.measured_at == NOW
    assert found.valid_for_s == 3600.0
    assert set(found.tables) == {
        "ranges",
        *(f"{kind}/{name}" for kind in ("allan", "spectrum") for name in ("10 pA", "100 pA")),
    }
    assert np.array_equal(found.tables["ranges"]["range"], [1e-11, 1e-10])
    assert np.array_equal(found.tables["allan/10 pA"]["deviation"], noise().allan.value)


def test_a_file_of_before_still_opens_and_what_it_lacks_is_unknown(tmp_path):
    path = tmp_path / "old.h5"
    attributes = {k: v for k, v in asdict(CALIBRATION).items() if k != "gain_sigma_ratio"}
    write_calibration(path, {**attributes, "source": "long ago"}, {"voltage": np.zeros(3)})
    found = HolderRecord.read(path)
    assert found.tables == {}
    assert found.age_s(NOW) is None
    assert "does not say when" in found.doubt(NOW)
    assert found.calibration.capacitance_F == 150e-12
    with pytest.raises(ValueError, match="lacks capacitance_F"):
        calibration_from({})


@pytest.mark.parametrize(
    ("hours", "says"),
    [(0, None), (11.9, None), (12.1, "12.1 h old; it is believed for 12 h"), (-3, "in the future")],
)
def test_a_calibration_is_believed_for_a_while(hours, says):
    doubt = record().doubt(NOW + timedelta(hours=hours))
    assert (doubt is None) if says is None else (says in doubt)


def test_a_moment_without_a_zone_is_universal_time(tmp_path):
    write_calibration(
        tmp_path / "a.h5",
        {**asdict(CALIBRATION), "measured_at": "2026-05-01T12:00:00"},
        {},
    )
    assert HolderRecord.read(tmp_path / "a.h5").measured_at == NOW


def test_the_zero_is_that_of_the_range_that_is_used():
    ranges = noise_tables([noise(1e-11)])["ranges"]
    same = in_range(CALIBRATION, ranges, 1e-10)
    assert same == CALIBRATION
    other = in_range(CALIBRATION, ranges, 1e-11)
    assert other.offset_A == noise(1e-11).mean_A
    assert other.offset_sigma_A == noise(1e-11).mean_sigma_A
    # The gain of the staircase's range is no longer common to holder and cell.
    assert other.capacitance_sigma_F == pytest.approx(np.hypot(1e-13, 1.5e-13))
    for unknown in (in_range(CALIBRATION, ranges, 1e-9), in_range(CALIBRATION, None, 1e-9)):
        assert unknown.offset_A == CALIBRATION.offset_A
    assert record().terms(1e-11).offset_A == noise(1e-11).mean_A
    assert record().terms(1e-10).offset_A == CALIBRATION.offset_A
    assert noise_tables([]) == {}
    assert range_name(1e-6) == "1 uA"


@pytest.fixture
def named(tmp_path):
    text = EXAMPLE.read_text("utf-8").replace('# calibration = "holder', 'calibration = "holder')

    def finding():
        experiment = Experiment.loads(text, folder=tmp_path)
        found = check(experiment).findings
        return next(f for f in found if f.what == "open-holder calibration")

    return finding


def test_check_looks_at_the_age_of_the_calibration(named, tmp_path):
    path = tmp_path / "holder.h5"
    missing = named()
    assert missing.severity is Severity.REFUSE
    assert "no such file" in missing.arithmetic
    now = datetime.now(UTC)
    record(measured_at=now - timedelta(hours=2)).write(path, overwrite=True)
    assert named().severity is Severity.OK
    assert "2.0 h old" in named().arithmetic
    record(measured_at=now - timedelta(hours=30)).write(path, overwrite=True)
    assert named().severity is Severity.WARN
    assert "30.0 h old" in named().arithmetic
    write_calibration(path, {"range_A": 1.0}, {}, overwrite=True)
    assert named().severity is Severity.REFUSE


# --- the rests ---------------------------------------------------------------------------


SPEC = RangeSpec(
    full_scale_A=1e-10, gain_ratio=1e-3, offset_A=3e-14, resolution_A=1e-15, settling_s=2.0
)


def test_rests_of_many_ranges_share_the_time():
    ((_, range_A),) = one = _rests([SPEC])
    assert range_A == 1e-10
    assert one[0][0].longest_s == NOISE_S + 8.0
    many = _rests([replace(SPEC, settling_s=0.0)] * 12)
    assert sum(step.longest_s for step, _ in many) == NOISE_BUDGET_S + 12


def test_readings_that_have_not_settled_tell_no_noise():
    n = 600
    samples = np.zeros(n, SAMPLE_DTYPE)
    samples["read_start_ns"] = np.arange(n) * 50_000_000
    samples["read_end_ns"] = samples["read_start_ns"] + 47_000_000
    samples["device_time_s"] = np.arange(n) * 0.05
    samples["current_A"] = np.random.default_rng(2).normal(0, 1e-15, n)
    samples["current_A"][: 8 * 20] = 1e-9
    samples["current_A"][300] = 1e-9
    samples["status"][300] = Status.INVALID
    found = _noise(samples, SPEC)
    assert found.count == n - 8 * 20 - 1
    assert abs(found.mean_A) < 1e-15


def test_a_driver_that_states_too_little_noise_is_named():
    summary = CalibrationSummary(
        **asdict(CALIBRATION),
        noise=(noise(), noise(1e-10, stated_A=1e-15)),
        measured_at=NOW.isoformat(),
        valid_for_s=VALID_FOR_S,
    )
    console = Console(width=200, record=True)
    console.print(render_calibration(summary))
    text = console.export_text()
    assert "believed for" in text
    assert "In the 100 pA range a reading scatters by" in text
    assert "In the 10 pA range" not in text
