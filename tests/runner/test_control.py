"""The operator's words: when each is carried out, and what is said where it is not."""

from dataclasses import dataclass

import pytest

from runner.control import KEYBOARD, MOST_ORDERS, Control, Wish


@dataclass
class Situation:
    step: int = 1
    held: str = ""
    waits: bool = False


def control(*before, **situation):
    made = Control()
    made.attach(Situation(**situation), lambda: 42)
    for word in before:
        assert made.order(word, source="view", step=1, text="said") is None, word
    made.take_orders()
    return made


RUNNING, HELD, WAITS, EARLY = {}, {"held": "V > 4 V"}, {"waits": True}, {"step": -1}


@pytest.mark.parametrize(
    ("before", "situation", "word", "refused"),
    [
        ((), RUNNING, "pause", None),
        ((), RUNNING, "resume", "nothing is paused or held"),
        ((), RUNNING, "next", None),
        ((), RUNNING, "stop", None),
        ((), RUNNING, "abort", None),
        ((), RUNNING, "halt", None),
        ((), EARLY, "next", "no step has begun"),
        ((), EARLY, "pause", None),
        ((), WAITS, "resume", None),
        ((), WAITS, "pause", None),
        ((), HELD, "resume", None),
        ((), HELD, "pause", "the plan is held, at rest: resume goes on with it"),
        ((), HELD, "next", "the plan is held, at rest: resume goes on with it"),
        ((), HELD, "stop", None),
        (("pause",), RUNNING, "pause", "the run is paused"),
        (("pause",), RUNNING, "next", "the run is paused: resume it first"),
        (("pause",), RUNNING, "resume", None),
        (("pause",), RUNNING, "stop", None),
        (("pause",), RUNNING, "abort", None),
        (("pause",), RUNNING, "halt", None),
        (("pause", "resume"), RUNNING, "resume", "nothing is paused or held"),
        (("stop",), RUNNING, "pause", "stop was asked for: the run ends"),
        (("stop",), RUNNING, "resume", "stop was asked for: the run ends"),
        (("stop",), RUNNING, "next", "stop was asked for: the run ends"),
        (("stop",), RUNNING, "stop", "stop was asked for already"),
        (("stop",), RUNNING, "abort", None),
        (("abort",), RUNNING, "stop", "abort was asked for already"),
        (("abort",), RUNNING, "halt", None),
        (("halt",), RUNNING, "abort", "halt was asked for already"),
        (("halt",), RUNNING, "halt", "halt was asked for already"),
        (
            (),
            RUNNING,
            "off",
            "'off' is no command of a run; pause, resume, stop, abort, halt, next and note are",
        ),
    ],
)
def test_every_word_in_every_state(before, situation, word, refused):
    made = control(*before, **situation)
    assert made.order(word, source="view", step=1) == refused
    orders = made.take_orders()
    assert [(o.word, o.source, o.t_ns) for o in orders] == (
        [(word, "view", 42)] if refused is None else []
    )


def test_what_ends_a_run_takes_its_pause_away():
    made = control("pause")
    assert made.is_paused
    made.order("stop", source="view")
    assert (made.is_paused, made.wish) == (False, Wish.STOP)


def test_a_next_that_means_a_step_which_is_over_ends_no_other():
    made = control(step=2)
    assert made.order("next", source="view", step=1) == "step 2 is over: step 3 is on"
    assert not made.take_next()
    assert made.order("next", source="view", step=2) is None
    assert made.take_next()
    assert not made.take_next()


def test_notes_are_bounded_and_what_acts_is_never_crowded_out():
    made = control()
    assert made.order("note", source="view", text="  ").startswith("a note has 1 to")
    assert made.order("note", source="view", text="x" * 10_001).startswith("a note has 1 to")
    said = [made.order("note", source="view", text=f" {n} ") for n in range(MOST_ORDERS)]
    assert said.count(None) == MOST_ORDERS // 2
    assert said[-1] == "too many notes at once; try again"
    assert made.order("halt", source="view") is None
    orders = made.take_orders()
    assert orders[3].text == "3"
    assert orders[-1].word == "halt"


def test_nothing_is_taken_once_the_plan_is_over():
    made = control()
    made.conclude()
    for word in ("pause", "note", "halt"):
        assert made.order(word, source="view", text="late") == "the plan is over"
    made.interrupt()  # a camera node may still be waited for
    assert made.wish is Wish.STOP
    assert not made.take_orders()


def test_ctrl_c_is_recorded_as_what_it_means():
    made = control()
    for _ in range(4):
        made.interrupt()
    assert made.wish is Wish.HALT
    assert [(o.word, o.source) for o in made.take_orders()] == [
        (word, KEYBOARD) for word in ("stop", "abort", "halt")
    ]


def test_lines_of_the_keyboard():
    made, told = control(), []
    made.type_line("\n", told.append)
    assert not made.take_go_on()
    made._run.held = "V > 4 V"
    made.type_line("\n", told.append)  # Enter goes on
    assert made.take_go_on()
    made._run.held = ""
    made.type_line("pause\n", told.append)
    assert made.is_paused
    made.type_line("\n", told.append)
    assert not made.is_paused
    made.type_line("note the beam was moved\n", told.append)
    made.type_line("paus\n", told.append)
    assert [(o.word, o.text) for o in made.take_orders()] == [
        ("resume", ""),
        ("pause", ""),
        ("resume", ""),
        ("note", "the beam was moved"),
    ]
    assert len(told) == 1
    assert told[0].startswith("'paus' is no command of a run")
