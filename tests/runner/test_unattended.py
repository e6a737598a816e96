"""What waits for an operator ends, where none can come."""

from dataclasses import replace

import pytest

from runner.control import Control, Wish
from runner.live_state import LiveState
from runner.unattended import REST_S, Unattended


def states(**waiting):
    state = LiveState(steps=3, step=1)
    return [replace(state, elapsed_s=t, **waiting) for t in (5.0, 6.0, 5.0 + REST_S)]


@pytest.mark.parametrize(
    ("waiting", "why"),
    [({"held": "V > 4 V"}, "held by V > 4 V; "), ({"waits": True}, "the plan waits for the oper")],
)
def test_after_some_rest_it_is_stopped_and_says_why(waiting, why):
    control, told = Control(), []
    unattended = Unattended(control, told.append)
    first, second, last = states(**waiting)
    unattended(first)
    unattended(second)
    assert control.wish is Wish.NOTHING
    unattended(last)
    assert control.wish is Wish.STOP
    assert control.why.startswith(why)
    assert told == [first, second, last]


def test_a_plan_that_goes_on_is_left_alone():
    control = Control()
    unattended = Unattended(control, lambda _state: None)
    first, second, last = states(held="V > 4 V")
    for state in (first, replace(second, held=""), last):
        unattended(state)
    assert control.wish is Wish.NOTHING


def test_an_operator_who_was_quicker_has_the_word():
    control = Control()
    unattended = Unattended(control, lambda _state: None)
    control.ask(Wish.ABORT)
    for state in states(held="V > 4 V"):
        unattended(state)
    assert (control.wish, control.why) == (Wish.ABORT, "")
