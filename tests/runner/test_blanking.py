"""A code is played as it was planned, and the beam is left as it was found, whatever happens."""

import asyncio
import math
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from cameras.microscope import BlankCommand, MicroscopeLost, MicroscopeState
from runner.blanking import (
    TRIES,
    BlankingPlayer,
    RhythmMeter,
    Unplayed,
    _Undisturbed,
    beside_the_run,
)
from runner.blanking_settings import BlankingSettings, CodeTooLong, Rhythm, plan_code
from runner.experiment import Experiment, ExperimentError
from runner.lab import LabError, refuse_impossible_speed
from sync.code import CodeRefused

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "examples" / "coded_blanking.toml").read_text("utf-8")
S = 1_000_000_000
RHYTHM = Rhythm(frame_period_s=0.05, duty=0.98, sample_interval_s=0.047, aperture_s=0.04)
ONCE = BlankingSettings(
    order=5,
    chip_s=0.33,
    every_s=math.inf,
    after_s=5.0,
    repeats=1,
    response_s=0.1,
    rise_s=0.0,
)
PLAN = plan_code(ONCE, RHYTHM)


def settings(**changes):
    names = ONCE.__slots__
    return BlankingSettings(**({name: getattr(ONCE, name) for name in names} | changes))


class LeapingClock:
    """Time that leaps to whatever is waited for, unless it is told to stand still."""

    def __init__(self):
        self.t_ns = 100 * S
        self.stands_from_ns = None
        self.waits = asyncio.Event()

    def now_ns(self):
        return self.t_ns

    async def sleep_until(self, t_ns):
        if self.stands_from_ns is not None and t_ns >= self.stands_from_ns:
            self.waits.set()
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        self.t_ns = max(self.t_ns, t_ns)

    @contextmanager
    def party(self):
        yield


class Kept:
    """A recorder that keeps events."""

    def __init__(self):
        self.events = []

    async def event(self, t_ns, kind, source, message, data=None):
        self.events.append((t_ns, kind, source, message, data))

    def of(self, kind):
        return [event for event in self.events if event[1] == kind]


class Beam:
    """A microscope that fails where it is told to, before or after its blanker moved."""

    def __init__(self, clock):
        self.clock = clock
        self.blanked = False
        self.known = True
        self.commands = []
        self.fails = {}
        self.moves_first = False
        self.asked = 0
        self.lost = False

    async def state(self):
        self.asked += 1
        if self.lost:
            raise MicroscopeLost("the microscope is gone")
        return MicroscopeState(beam_blanked=self.blanked if self.known else None)

    async def blank(self, *, on):
        self.commands.append((self.clock.now_ns(), on))
        error = self.fails.get(len(self.commands) - 1)
        if error is not None and not self.moves_first:
            raise error
        sent_ns = self.clock.now_ns()
        self.clock.t_ns += 2_000_000
        self.blanked = on
        if error is not None:
            raise error
        return BlankCommand(sent_ns=sent_ns, done_ns=self.clock.now_ns(), blanked=on)


@pytest.fixture
def clock():
    return LeapingClock()


@pytest.fixture
def beam(clock):
    return Beam(clock)


@pytest.fixture
def kept():
    return Kept()


def player(beam, kept, clock, chosen=ONCE, measured=lambda: RHYTHM):
    return BlankingPlayer(chosen, recorder=kept, microscope=beam, clock=clock, measured=measured)


# --- what is played -------------------------------------------------------------------------


async def test_edges_are_commanded_in_their_turn_and_recorded_with_their_stamps(beam, kept, clock):
    start_ns = clock.now_ns()
    await player(beam, kept, clock).play(PLAN)
    assert [on for _, on in beam.commands] == [True, False] * 8
    assert [t_ns for t_ns, _ in beam.commands] == PLAN.code.edges_ns(start_ns).tolist()
    assert beam.blanked is False
    (event,) = kept.events
    data = event[4]
    assert event[1:3] == ("beam", "blanker")
    assert (data["complete"], data["left_on"], data["edges"]) == (True, True, 16)
    assert data["sent_ns"] == PLAN.code.edges_ns(start_ns).tolist()
    assert np.array(data["done_ns"]) - np.array(data["sent_ns"]) == pytest.approx([2e6] * 16)
    assert clock.now_ns() >= start_ns + round(PLAN.code.length_s * S)  # the last chip lasts, too


async def test_a_code_comes_once_after_a_while(beam, kept, clock):
    start_ns = clock.now_ns()
    await player(beam, kept, clock).run()
    assert len(kept.of("beam")) == 1
    assert beam.commands[0][0] == start_ns + 5 * S


async def test_codes_come_again_and_again(beam, kept, clock):
    clock.stands_from_ns = clock.now_ns() + 64 * S
    playing = asyncio.create_task(player(beam, kept, clock, settings(every_s=25.0)).run())
    await clock.waits.wait()
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    starts = [data["start_ns"] for *_, data in kept.of("beam")]
    assert np.diff(starts).tolist() == [25 * S, 25 * S]
    assert beam.blanked is False


async def test_the_run_must_be_measured_before_a_code_is_chosen(beam, kept, clock):
    answers = iter([None, None, RHYTHM])
    start_ns = clock.now_ns()
    await player(beam, kept, clock, measured=lambda: next(answers)).run()
    assert beam.commands[0][0] == start_ns + 6 * S


async def test_a_chip_that_the_measured_frames_forbid_is_not_played(beam, kept, clock):
    measured = Rhythm(frame_period_s=0.11, duty=0.9, sample_interval_s=0.047, aperture_s=0.04)
    await player(beam, kept, clock, measured=lambda: measured).run()
    assert beam.commands == []
    ((_, _, _, message, _),) = kept.of("code_refused")
    assert "is 3 frame periods" in message
    assert "would do" in message


# --- the beam is left as it was found ---------------------------------------------------------


@pytest.mark.parametrize("moves_first", [True, False])
@pytest.mark.parametrize("at", [0, 1, 2, 7, 15])
@pytest.mark.parametrize("error", [MicroscopeLost("gone"), RuntimeError("a mistake")])
async def test_a_command_that_fails_leaves_the_beam_on(beam, kept, clock, at, error, moves_first):
    beam.fails, beam.moves_first = {at: error}, moves_first
    playing = player(beam, kept, clock)
    if isinstance(error, MicroscopeLost):
        await playing.play(PLAN)
    else:
        with pytest.raises(RuntimeError, match="a mistake"):
            await playing.play(PLAN)
    assert beam.blanked is False
    assert beam.commands[-1][1] is False
    assert len(beam.commands) == at + 2
    data = kept.of("beam")[0][4]
    assert (data["complete"], data["left_on"]) == (False, True)
    assert len(data["sent_ns"]) % 2 == 0
    assert playing.playing is False


@pytest.mark.parametrize("edge", range(16))
async def test_a_run_that_ends_in_a_code_leaves_the_beam_on(beam, kept, clock, edge):
    clock.stands_from_ns = int(PLAN.code.edges_ns(clock.now_ns())[edge])
    playing = asyncio.create_task(player(beam, kept, clock).play(PLAN))
    await clock.waits.wait()
    assert beam.blanked is (edge % 2 == 1)
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert beam.blanked is False
    ((_, _, _, message, data),) = kept.of("beam")
    assert "the run ended" in message
    assert len(data["sent_ns"]) == edge + edge % 2


async def test_who_cancels_twice_does_not_leave_the_beam_off(beam, kept, clock):
    clock.stands_from_ns = int(PLAN.code.edges_ns(clock.now_ns())[1])
    gate, plain = asyncio.Event(), beam.blank

    async def slow(*, on):
        if not on:
            await gate.wait()
        return await plain(on=on)

    beam.blank = slow
    playing = asyncio.create_task(player(beam, kept, clock).play(PLAN))
    await clock.waits.wait()
    for _ in range(3):
        playing.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert beam.blanked is True
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert beam.blanked is False
    assert len(kept.of("beam")) == 1


async def test_a_beam_that_cannot_be_let_on_is_told_of(beam, kept, clock):
    beam.fails = {i: MicroscopeLost("gone") for i in range(1, 20)}
    await player(beam, kept, clock).play(PLAN)
    assert len(beam.commands) == 2 + TRIES
    assert kept.of("beam")[0][4]["left_on"] is False
    ((_, _, _, message, _),) = kept.of("beam_left")
    assert "may be blanked still" in message


async def test_letting_the_beam_on_is_tried_again(beam, kept, clock):
    beam.fails = {1: MicroscopeLost("gone"), 2: MicroscopeLost("gone")}
    await player(beam, kept, clock).play(PLAN)
    assert beam.blanked is False
    assert len(beam.commands) == 4
    assert kept.of("beam_left") == []


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("blanked", True, "the beam is blanked"),
        ("known", False, "does not say"),
        ("lost", True, "the microscope is gone"),
    ],
)
async def test_a_beam_that_is_not_known_to_be_on_is_not_touched(
    beam, kept, clock, name, value, says
):
    setattr(beam, name, value)
    with pytest.raises(Unplayed, match=says):
        await player(beam, kept, clock).play(PLAN)
    assert beam.commands == []
    await player(beam, kept, clock).run()
    assert beam.commands == []
    assert says in kept.of("code_refused")[0][3]


# --- beside the run ---------------------------------------------------------------------------


def beside(beam, chosen, kept, clock):
    return beside_the_run(beam, chosen, recorder=kept, clock=clock, measured=lambda: RHYTHM)


async def test_a_run_without_a_microscope_is_left_alone(kept, clock):
    async with beside(None, None, kept, clock):
        await asyncio.sleep(0)
    assert kept.events == []


async def test_a_microscope_is_watched_and_never_commanded_without_a_code(beam, kept, clock):
    async with asyncio.timeout(5), beside(beam, None, kept, clock):
        while beam.asked < 5:
            await asyncio.sleep(0)
    assert [message for *_, message, _ in kept.events] == ["the microscope answers"]
    assert beam.commands == []


async def test_a_code_is_no_news_of_the_microscope(beam, kept, clock):
    async with asyncio.timeout(5), beside(beam, ONCE, kept, clock):
        while not kept.of("beam"):
            await asyncio.sleep(0)
    assert [message for *_, message, _ in kept.of("microscope")] == ["the microscope answers"]


async def test_nothing_is_asked_between_the_edges_of_a_code(beam, kept, clock):
    asked, plain = [], beam.blank

    async def counted(*, on):
        asked.append(beam.asked)
        return await plain(on=on)

    beam.blank = counted
    async with asyncio.timeout(5), beside(beam, ONCE, kept, clock):
        while not kept.of("beam"):
            await asyncio.sleep(0)
    assert asked[0] > 1
    assert set(asked[1:]) == {asked[-1]}
    assert asked[-1] - asked[0] <= 1  # one that was on its way


async def test_a_state_that_was_asked_for_before_the_code_is_no_news(beam, kept, clock):
    answer, plain = asyncio.Event(), beam.state

    async def slow():
        state = await plain()
        if beam.asked == 2:
            await answer.wait()  # it is on its way while the code begins
            return MicroscopeState(beam_blanked=True)
        return state

    beam.state = slow
    playing = player(beam, kept, clock)
    watched = _Undisturbed(beam, playing)
    assert (await watched.state()).beam_blanked is False
    late = asyncio.create_task(watched.state())
    await asyncio.sleep(0)
    playing.playing = True
    answer.set()
    assert (await late).beam_blanked is False


async def test_an_error_beside_the_run_is_told_and_the_run_goes_on(beam, kept, clock):
    beam.fails = {3: RuntimeError("a mistake")}
    async with asyncio.timeout(5), beside(beam, ONCE, kept, clock):
        while not kept.of("beam"):
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
    assert kept.events[-1][3] == "RuntimeError: a mistake"
    assert beam.blanked is False


async def test_a_run_that_fails_leaves_the_beam_on_too(beam, kept, clock):
    clock.stands_from_ns = int(PLAN.code.edges_ns(clock.now_ns() + 5 * S)[1])

    async def failing():
        async with beside(beam, ONCE, kept, clock):
            while not beam.blanked:
                await asyncio.sleep(0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await failing()
    assert beam.blanked is False
    assert kept.of("beam")[0][4]["complete"] is False


# --- what is measured -------------------------------------------------------------------------


def test_periods_are_those_of_the_whole_run_and_dropped_frames_count():
    meter = RhythmMeter()
    for index in (3, 4, 6, 7, 8, 9, 10, 11, 12):
        meter.frame(index, 7 * S + index * 50_000_000, 49_000_000)
    for i in range(9):
        meter.reading(i * 47_000_000, 0.04)
    assert meter.rhythm() is None
    meter.frame(13, 7 * S + 13 * 50_000_000, 49_000_000)
    assert meter.rhythm() is None
    meter.reading(3 * S, 0.04)  # a step of the plan lay between
    meter.reading(3 * S + 47_000_000, 0.04)
    assert meter.rhythm() == RHYTHM


def test_frames_whose_stamps_stand_still_tell_nothing():
    meter = RhythmMeter()
    for index in range(20):
        meter.frame(index, 7 * S, 0)
        meter.reading(index * S, 0.04)
    assert meter.rhythm() is None


def test_frames_that_do_not_say_how_long_they_were_exposed_always_were():
    meter = RhythmMeter()
    for index in range(20):
        meter.frame(index, index * S, 0)
        meter.reading(index * S, 0.04)
    found = meter.rhythm()
    assert (found.duty, found.frame_period_s, found.sample_interval_s) == (1.0, 1.0, 1.0)


# --- which code -------------------------------------------------------------------------------


def test_the_longest_code_that_there_is_time_for_is_chosen():
    auto = settings(order=None, chip_s=None)
    assert plan_code(auto, RHYTHM).code.order == 7
    chip_s = plan_code(auto, RHYTHM).code.chip_ns / 1e9
    for order in (7, 6, 5):
        every_s = 2.001 * (2**order - 1) * chip_s
        fitting = settings(order=None, chip_s=None, every_s=every_s)
        assert plan_code(fitting, RHYTHM).code.order == order
    with pytest.raises(CodeTooLong, match="leave at least"):
        plan_code(settings(order=None, every_s=10.0), RHYTHM)


def test_a_commensurate_chip_is_refused_with_one_that_would_do():
    with pytest.raises(CodeRefused) as refused:
        plan_code(settings(chip_s=0.35), RHYTHM)
    would_do = settings(chip_s=refused.value.proposed_chip_s)
    assert plan_code(would_do, RHYTHM).edges == 16


# --- the experiment file ------------------------------------------------------------------------


def problems_of(text):
    with pytest.raises(ExperimentError) as refused:
        Experiment.loads(text)
    return {problem.key: problem for problem in refused.value.problems}


def changed(*pairs):
    text = TEXT
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


def test_the_example_is_what_it_says():
    experiment = Experiment.loads(TEXT)
    assert experiment.microscope.driver == "mock"
    assert experiment.blanking == BlankingSettings(
        order=None,
        chip_s=None,
        every_s=math.inf,
        after_s=5.0,
        repeats=1,
        response_s=0.1,
        rise_s=0.0,
    )


def test_nothing_is_blanked_or_watched_unless_it_is_asked_for():
    experiment = Experiment.loads((ROOT / "examples" / "lco_lipon_li.toml").read_text("utf-8"))
    assert experiment.microscope is None
    assert experiment.blanking is None


def test_all_mistakes_are_told_together_with_their_keys():
    found = problems_of(
        changed(
            (
                'driver = "mock"                              #',
                'driver = "temscrip"\nport = 70000 #',
            ),
            ('code = "auto"', 'code = 4\nrepeats = 0\nrise = "-1 ms"\nevery = "0 s"'),
            ('response = "100 ms"', 'chip = "-1 s"'),
        )
    )
    says = {
        "microscope.driver": "did you mean 'temscript'",
        "microscope.port": "no TCP port",
        "blanker.code": "an order from 5 to 10",
        "blanker.repeats": "at least 1",
        "blanker.rise": "cannot be negative",
        "blanker.every": "such as 10 min",
        "blanker.chip": "such as 0.9 s",
    }
    assert found.keys() == says.keys()
    for key, text in says.items():
        assert text in found[key].what
        assert found[key].line > 0


@pytest.mark.parametrize(
    ("pairs", "key", "says"),
    [
        ([('# chip = "0.33 s"', 'chip = "0.35 s"')], "blanker.chip", "7 frame periods"),
        ([('# chip = "0.33 s"', 'chip = "0.06 s"')], "blanker.chip", "is too short"),
        ([('# every = "10 min"', 'every = "9 s"')], "blanker.every", "leave at least"),
        ([('code = "auto"', "cod = 5")], "blanker.cod", "did you mean code"),
        ([('code = "auto"', 'code = "five"')], "blanker.code", "is not right"),
    ],
)
def test_what_cannot_be_played_is_refused_with_its_key(pairs, key, says):
    found = problems_of(changed(*pairs))
    assert any(name.startswith(key) and says in p.what for name, p in found.items())


@pytest.mark.parametrize(
    ("pairs", "key", "says"),
    [
        ([('frame_rate = "20 Hz"', 'frame_rate = "0 Hz"')], "camera.frame_rate", "more than"),
        ([("height = 48", 'height = 48\nexposure = "1 s"')], "camera.exposure", "between frames"),
        ([('resource = "mock"', 'resource = "mock"\nnplc = 0')], "potentiostat.nplc", "between"),
        ([("height = 48", 'height = 48\nexposure = "0.1 ms"')], "blanker.code", "no chip suits"),
    ],
)
def test_a_code_is_judged_by_what_can_be(pairs, key, says):
    found = problems_of(changed(*pairs))
    assert list(found) == [key]
    assert says in found[key].what


def without(name):
    start = TEXT.index(f"[{name}]")
    return TEXT[:start] + TEXT[TEXT.index("\n[", start) :]


def test_a_code_needs_a_microscope_and_a_camera():
    assert "no microscope" in problems_of(without("microscope"))["blanker"].what
    assert "no camera" in problems_of(without("camera"))["blanker"].what


def test_a_simulated_microscope_needs_a_simulated_bench():
    text = changed(('resource = "mock"', 'resource = "GPIB0::24::INSTR"'))
    Experiment.loads(text)  # its camera is simulated, so there is a bench
    text = text.replace('[camera]\ndriver = "mock"', '[camera]\ndriver = "stream"\nport = 5000')
    assert "simulated bench" in problems_of(text)["microscope.driver"].what


def test_a_real_microscope_cannot_be_hurried():
    simulated = Experiment.loads(TEXT)
    refuse_impossible_speed(simulated, math.inf)
    real = Experiment.loads(
        changed(('driver = "mock"                              #', 'driver = "temscript" #'))
    )
    with pytest.raises(LabError):
        refuse_impossible_speed(real, math.inf)
