"""The table ``[record]``: read strictly, bounded in memory, and what it makes of readings."""

from pathlib import Path

import numpy as np
import pytest

from runner.check import check
from runner.experiment import Experiment, ExperimentError
from runner.findings import Severity
from runner.record_settings import KINDS, RULE_KIND, RecordSettings, Watch, held_frames
from session.records import SESSION_SAMPLE_DTYPE, Capture

EXAMPLES = Path(__file__).parents[2] / "examples"
TEXT = (EXAMPLES / "lco_lipon_li.toml").read_text("utf-8")
WHOLE = """
[record]
compression = "auto"
before = "2 s"
after = "5 s"
idle_rate = "1 Hz"
on = ["step_started", "|I| > 50 pA", "V > 4.1 V"]
"""


def record_of(table):
    return Experiment.loads(TEXT + table).record


def test_without_a_table_all_frames_are_stored_as_they_are():
    assert record_of("") == RecordSettings(compression="none", capture=None, rules=())


def test_the_table_says_around_what_all_frames_are_stored():
    record = record_of(WHOLE)
    assert record.compression == "auto"
    assert record.capture == Capture(
        before_s=2.0, after_s=5.0, idle_rate_Hz=1.0, kinds=("step_started", RULE_KIND)
    )
    assert [rule.text for rule in record.rules] == ["|I| > 50 pA", "V > 4.1 V"]
    only = record_of('\n[record]\ncompression = "deflate"\n')
    assert (only.compression, only.capture) == ("deflate", None)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"auto"', '"zip"', "record.compression"),
        ('before = "2 s"', 'before = "2"', "record.before"),
        ('before = "2 s"\n', "", "before, after, idle_rate and on go together"),
        ('before = "2 s"', 'before = "-2 s"', "cannot be negative"),
        ('"1 Hz"', '"5 Hz"', "is no less than the camera's frame_rate"),
        ('"step_started"', '"step_begun"', "is no event .*step_started.* and no rule"),
        ("V > 4.1 V", "dV/dt > 1 mV/s", "a rule here is on V, I"),
        ("V > 4.1 V", "V > 4.1 V, then hold", "nothing can follow here"),
        ('on = ["step_started", "|I| > 50 pA", "V > 4.1 V"]\n', "", "it names the events"),
        ('after = "5 s"', 'after = "5 s"\nfor = "1 s"', "is not known here"),
    ],
)
def test_what_is_wrong_with_it_is_told(old, new, why):
    assert old in WHOLE
    with pytest.raises(ExperimentError, match=f"(?s){why}"):
        record_of(WHOLE.replace(old, new))


def test_a_plan_without_frames_that_come_here_has_nothing_to_record():
    begin, end = TEXT.index("[camera]"), TEXT.index("[mock]")
    text = (TEXT[:begin] + TEXT[end:]).replace('dose = "500 e/angstrom^2"\n', "")
    with pytest.raises(ExperimentError, match="frames that come here, and none do"):
        Experiment.loads(text + WHOLE)


def memory_found(text):
    found = [f for f in check(Experiment.loads(text)).findings if f.what.startswith("memory")]
    return found[0] if found else None


def test_check_shows_the_memory_and_refuses_what_is_too_much():
    assert memory_found(TEXT) is None
    small = memory_found(TEXT + WHOLE)
    assert small.severity is Severity.OK
    assert small.arithmetic.startswith("2 s x 5 Hz: 13 frames of 64 kB = 832 kB")
    much = TEXT.replace('frame_rate = "5 Hz"', 'frame_rate = "400 Hz"\nheight = 1024\nwidth = 1024')
    found = memory_found(much + WHOLE)
    assert found.severity is Severity.REFUSE
    assert "946 frames of 1.05 MB = 992 MB; 805 MB may be held" in found.arithmetic
    assert memory_found(much + WHOLE.replace('"2 s"', '"1 s"')).severity is Severity.OK


def test_of_a_camera_that_has_not_answered_the_largest_frame_is_shown():
    capture = Capture(before_s=1.0, after_s=1.0, idle_rate_Hz=1.0, kinds=KINDS)
    found = held_frames(RecordSettings(capture=capture), 100.0, 0)
    assert found.severity is Severity.OK
    assert "133 frames, each at most 5.4" in found.arithmetic


def test_a_rule_speaks_once_when_it_begins_to_hold_and_never_of_no_number():
    watch = Watch(record_of(WHOLE).rules)
    rows = np.zeros(7, SESSION_SAMPLE_DTYPE)
    rows["t_ns"] = np.arange(7)
    rows["voltage"] = 4.0, 4.2, 4.2, np.nan, 4.0, 4.2, 4.0
    rows["current"] = 0.0, 0.0, -6e-11, -6e-11, 0.0, 0.0, 0.0
    found = [*watch.look(rows[:3]), *watch.look(rows[3:])]
    assert found == [(1, "V > 4.1 V"), (2, "|I| > 50 pA"), (5, "V > 4.1 V")]
    assert not list(Watch(()).look(rows))
