"""The order of steps, and what an operator or a limit does to it."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potentiostat.limits import Condition
from potentiostat.records import RangeSpec
from potentiostat.technique import Step, chronopotentiometry, open_circuit
from runner.control import Control, Wish
from runner.messages import EndKind, StepEnded
from runner.plan import Ending, ExitCode, Plan, choose_range, longest_s


def time_stop(seconds: float) -> Condition:
    return Condition(quantity="t", relation=">", value=seconds, text=f"t > {seconds} s")


def steps(*currents: float) -> list[Step]:
    return [
        chronopotentiometry(i, (time_stop(10.0),)) if i else open_circuit(10.0) for i in currents
    ]


def plan(*currents: float) -> Plan:
    return Plan(steps(*currents), range_A=1e-10)


def ended(kind: EndKind, reason: str = "why") -> StepEnded:
    return StepEnded(index=0, kind=kind, reason=reason, t_ns=0, latency_ns=0)


def test_steps_are_played_in_order_in_the_range_of_the_run():
    played = plan(0.0, 2e-11, 0.0)
    first, second, third = (played.next_step() for _ in range(3))
    assert [s.index for s in (first, second, third)] == [0, 1, 2]
    assert second.step.current_A == 2e-11
    assert second.range_A == 1e-10
    assert played.next_step() is None
    assert played.step is None
    assert played.ending == Ending(code=ExitCode.DONE, reason="completed")
    assert len(played) == 3


def test_stop_goes_on_with_the_resting_step_at_the_end():
    played = plan(0.0, 2e-11, -2e-11, 0.0)
    played.next_step()
    played.next_step()
    assert played.obey(Wish.STOP) == "stopped by the operator"
    assert played.obey(Wish.STOP) is None
    assert not played.must_close
    assert played.next_step().index == 3
    assert played.next_step() is None
    assert played.ending.code is ExitCode.INTERRUPTED


def test_stop_ends_a_plan_that_has_no_rest_at_its_end():
    played = plan(0.0, 2e-11, -2e-11)
    played.next_step()
    played.obey(Wish.STOP)
    assert played.next_step() is None


@pytest.mark.parametrize("wish", [Wish.ABORT, Wish.HALT])
def test_abort_and_halt_close(wish):
    played = plan(0.0, 2e-11)
    played.next_step()
    assert played.obey(wish)
    assert played.must_close


def test_a_greater_wish_replaces_a_smaller_one_and_never_back():
    control = Control()
    control.interrupt()
    assert control.wish is Wish.STOP
    control.interrupt()
    control.ask(Wish.STOP)
    assert control.wish is Wish.ABORT
    for _ in range(3):
        control.interrupt()
    assert control.wish is Wish.HALT


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (EndKind.LIMIT, ExitCode.LIMIT),
        (EndKind.FAULT, ExitCode.FAILED),
        (EndKind.LEASE, ExitCode.FAILED),
    ],
)
def test_an_end_that_was_not_planned_decides_the_exit_code(kind, code):
    played = plan(0.0)
    played.next_step()
    played.judge(ended(kind, "voltage too high"))
    assert played.ending == Ending(code=code, reason="voltage too high")


@pytest.mark.parametrize("kind", [EndKind.CONDITION, EndKind.COMMAND])
def test_a_planned_end_decides_nothing(kind):
    played = plan(0.0)
    played.next_step()
    played.judge(ended(kind))
    assert played.ending is None


def test_refusing_more_outlasts_later_wishes():
    played = plan(0.0, 1e-11)
    ending = Ending(code=ExitCode.LIMIT, reason="dose")
    played.refuse_more(ending)
    assert played.must_close
    assert played.obey(Wish.HALT) is None
    assert played.ending == ending


def ranges() -> list[RangeSpec]:
    return [
        RangeSpec(
            full_scale_A=full,
            gain_ratio=0.01,
            offset_A=0.0,
            resolution_A=full / 1e5,
            settling_s=1.0,
        )
        for full in (1e-12, 1e-11, 1e-10)
    ]


def test_smallest_range_with_headroom_is_chosen():
    assert choose_range(5e-12, ranges()).full_scale_A == 1e-11
    assert choose_range(-9.5e-12, ranges()).full_scale_A == 1e-10
    assert choose_range(0.0, ranges()).full_scale_A == 1e-12


def test_a_current_beyond_all_ranges_is_refused():
    with pytest.raises(ValueError, match="beyond the largest range"):
        choose_range(1e-9, ranges())


def test_a_range_that_only_measures_is_not_chosen():
    small, *others = ranges()
    of_meter = replace(small, sources=False)
    assert choose_range(5e-13, [of_meter, *others]).full_scale_A == 1e-11
    with pytest.raises(ValueError, match="can source, 0 A"):
        choose_range(5e-13, [of_meter])


# --- jumps -------------------------------------------------------------------------------


def labelled(*labels: str) -> list[Step]:
    return [replace(open_circuit(10.0), label=label) for label in labels]


def play(played: Plan, jumps: dict[str, tuple[str, int]], most: int = 40) -> list[str]:
    """Play a plan in which the rule of a step always goes somewhere."""
    way = []
    while played.next_step() is not None:
        assert len(way) < most, "the plan never ends"
        label = played[played.index].label
        way.append(label)
        goto, times = jumps.get(label, ("", 0))
        played.judge(
            StepEnded(
                index=played.index,
                kind=EndKind.CONDITION,
                reason=f"rule of {label}",
                t_ns=0,
                latency_ns=0,
                goto=goto,
                goto_most=times,
            )
        )
    return way


def test_a_rule_may_go_back_so_many_times_and_then_goes_on():
    played = Plan(labelled("a", "b", "c"), range_A=1e-10)
    assert play(played, {"b": ("a", 2)}) == ["a", "b", "a", "b", "a", "b", "c"]
    # Each step that is played has a number of its own.
    assert played.index == len(played) == 7
    assert play(Plan(labelled("a", "b"), range_A=1e-10), {"a": ("a", 3)}) == [*"aaaab"]


def test_a_rule_may_skip_steps():
    assert play(Plan(labelled(*"abcd"), range_A=1e-10), {"a": ("d", 0)}) == ["a", "d"]


def test_jumps_that_meet_end_all_the_same():
    way = play(Plan(labelled(*"abcd"), range_A=1e-10), {"b": ("a", 2), "d": ("a", 1)})
    assert way == [*"abababcd", *"abcd"]
    way = play(Plan(labelled(*"abcd"), range_A=1e-10), {"a": ("c", 0), "d": ("a", 2)})
    assert way == [*"acd" * 3]


def test_what_a_limit_or_an_operator_ends_goes_nowhere():
    played = Plan(labelled(*"ab"), range_A=1e-10)
    played.next_step()
    played.judge(replace(ended(EndKind.COMMAND), goto="a", goto_most=3))
    assert played.next_step().index == 1
    assert played.next_step() is None
    stopped = Plan(labelled(*"abc"), range_A=1e-10)
    stopped.next_step()
    stopped.obey(Wish.STOP)
    stopped.judge(replace(ended(EndKind.CONDITION), goto="a", goto_most=3))
    assert stopped.next_step().index == 2


@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_every_plan_ends_within_its_longest_duration(data):
    labels = "abcde"
    jumps = {}
    for here in labels:
        if data.draw(st.booleans()):
            goto = data.draw(st.sampled_from(labels))
            jumps[here] = (goto, data.draw(st.integers(1, 3)) if goto <= here else 0)
    steps_ = [
        replace(
            step,
            until=(
                Condition(
                    quantity="t",
                    relation=">",
                    value=10.0,
                    text="",
                    action="goto",
                    goto=jumps[step.label][0],
                    goto_most=jumps[step.label][1],
                ),
            )
            if step.label in jumps
            else (),
        )
        for step in labelled(*labels)
    ]
    way = play(Plan(steps_, range_A=1e-10), jumps, most=2000)
    assert len(way) * 10.0 <= longest_s(steps_)
