"""The grammar of ``until``."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.rules import RuleError, parse_rule


@pytest.mark.parametrize(
    ("text", "quantity", "relation", "value"),
    [
        ("V > 4.2 V", "V", ">", 4.2),
        ("t>120 s", "t", ">", 120.0),
        ("  I <  1 pA ", "I", "<", 1e-12),
        ("Q > 3 nC", "Q", ">", 3e-9),
        ("t > 2 min", "t", ">", 120.0),
        ("|I| < 0.5 pA", "|I|", "<", 5e-13),
        ("Q_ionic > 1 nC", "Q_ionic", ">", 1e-9),
        ("dV/dt < 3.6 mV/h", "dV/dt", "<", 1e-6),
        ("|dI/dt| < 1 fA/s", "|dI/dt|", "<", 1e-15),
    ],
)
def test_reads_a_comparison(text, quantity, relation, value):
    rule = parse_rule(text)
    assert (rule.quantity, rule.relation, rule.value) == (quantity, relation, value)
    assert rule.text == " ".join(text.split())


@pytest.mark.parametrize(
    ("text", "confirm", "window_s"),
    [
        ("V > 4.2 V", 1, 30.0),
        ("V > 4.2 V, 3 times", 3, 30.0),
        ("|dV/dt| < 1 mV/h over 2 min", 1, 120.0),
        ("|dV/dt| < 1 mV/h over 60 s , 5 times", 5, 60.0),
    ],
)
def test_a_rule_may_ask_for_readings_in_a_row_and_a_time(text, confirm, window_s):
    rule = parse_rule(text)
    assert (rule.confirm, rule.window_s) == (confirm, window_s)


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("V > 4.2 V", "next"),
        ("V > 4.2 V, then next step", "next"),
        ("V > 4.2 V, then hold", "hold"),
        ("|dV/dt| < 1 mV/h over 60 s, 5 times, then safe state", "safe"),
        ("V > 4.2 V , then  safe   state ", "safe"),
    ],
)
def test_a_rule_may_say_what_follows(text, action):
    assert parse_rule(text).action == action


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("front.position > 400 nm", "column 1: rules on what the images show"),
        ("distance(dendrite.tip, cathode.edge) < 200 nm", "what the images show"),
        ("dose > 500 e/angstrom^2", "what the images show"),
        ("v > 3 V", "did you mean V"),
        ("T > 3 s", "did you mean t"),
        ("U > 3 V", "'U' is not known; write for example"),
        ("V >= 3 V", "column 3: a rule compares with > or <"),
        ("V == 3 V", "compares with > or <"),
        ("V > 4,2 V", "column 5: '4,2 V' has a comma"),
        ("I < 1 pV", "column 5: '1 pV' is a voltage"),
        ("V 4.2 V", "is no rule"),
        ("V > 4.2 V over 3 s", "column 16: only a slope is taken over a time"),
        ("dV/dt < 1 mV/h over 3 V", "column 21: '3 V' is a voltage"),
        ("dV/dt < 1 mV/h over 0 s", "more than nothing"),
        ("dV/dt < 1 mV", "'1 mV' is a voltage; this field is a scan rate"),
        ("V > 4.2 V, 0 times", "'0' times cannot be"),
        ("V > 4.2 V, three times", "'three' times cannot be"),
        ("V > 4.2 V, 1001 times", "times cannot be"),
        ("V > 4.2 V, then dance", "column 17: 'dance' is nothing that can follow; write then next"),
        ("V > 4.2 V, then", "column 16: '' is nothing that can follow"),
        ("", "is no rule"),
        (3, "3 is no rule"),
    ],
)
def test_refuses_with_the_place_in_the_line(text, says):
    with pytest.raises(RuleError) as refused:
        parse_rule(text)
    assert says in str(refused.value)


@given(st.text(max_size=60))
def test_no_text_does_anything_but_be_read_or_refused(text):
    try:
        parse_rule(text)
    except RuleError as refused:
        assert str(refused)
