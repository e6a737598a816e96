"""What rules may ask of each tracker that is registered."""

import pytest

from correlate.registry import tracker_class, tracker_names
from runner.image_rules import KIND_OF


@pytest.mark.parametrize("name", tracker_names())
def test_a_tracker_says_what_rules_may_ask_of_it_and_each_has_a_kind(name):
    quantities = tracker_class(name).quantities
    assert isinstance(quantities, tuple)
    assert set(quantities) <= set(KIND_OF)
    assert (name == "drift") == (not quantities)
