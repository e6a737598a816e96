"""What the simulated world says of a number that it does not have."""

import pytest

from mocks.scenario import load


def test_an_unknown_number_is_told_with_all_that_there_are():
    with pytest.raises(ValueError, match="has no 'colour'") as told:
        load("lco_lipon_li", colour=1.0)
    for part in ("stray_F", "dose_rate_e_m2_s", *_own("smu"), *_own("blanker")):
        assert part in str(told.value)


def _own(part):
    return list(getattr(load("lco_lipon_li"), part).__dataclass_fields__)
