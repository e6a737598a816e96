"""The live table and the bar."""

import io
import math

import pytest
from rich.console import Console

from runner.live_state import LiveState
from runner.messages import EndKind, StepEnded
from runner.terminal import Screen, live_table


def state():
    made = LiveState(steps=3, step=1, step_name="cp", planned_s=100.0, elapsed_s=40.0)
    made.voltage_V, made.current_A, made.charge_C = 3.9312, 2e-11, 8.4e-10
    made.samples, made.frames, made.dropped, made.dose_e_m2 = 800, 200, 3, 4.5e21
    made.ended.append(
        StepEnded(index=0, kind=EndKind.CONDITION, reason="t > 20 s", t_ns=0, latency_ns=0)
    )
    return made


def text_of(console):
    return console.file.getvalue()


def test_the_table_tells_what_a_person_wants_to_know():
    console = Console(file=io.StringIO(), width=120)
    console.print(live_table(state()))
    text = text_of(console)
    for part in ("3.9312 V", "20 pA", "840 pC", "200 (3 dropped)", "45.0 e/Å²", "t > 20 s"):
        assert part in text, part


@pytest.mark.parametrize(
    ("kelvin", "shown"), [(None, ""), (318.15, "318.1 K"), (math.nan, "unknown")]
)
def test_the_table_tells_the_temperature_where_one_is_asked_for(kelvin, shown):
    made, console = state(), Console(file=io.StringIO(), width=120)
    made.temperature_K = kelvin
    console.print(live_table(made))
    line = [text for text in text_of(console).splitlines() if "temperature" in text]
    assert len(line) == (kelvin is not None)
    assert all(shown in text for text in line)


def test_nothing_is_drawn_into_a_pipe():
    console = Console(file=io.StringIO(), force_terminal=False)
    screen = Screen(console)
    screen.stage("measuring")
    with screen.watching() as watcher:
        watcher(state())
    assert text_of(console) == ""


def test_a_terminal_gets_a_table_and_a_bar():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    screen = Screen(console)
    screen.stage("measuring the open holder")
    with screen.watching() as watcher:
        watcher(state())
    text = text_of(console)
    assert "measuring the open holder" in text
    assert "40 %" in text
    assert "step 2/3 cp" in text
