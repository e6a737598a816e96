"""What was registered in another process comes back as it was found."""

import pickle

import numpy as np

from correlate.drift import Shift, no_shift
from correlate.registering import Registered


def shift(dx):
    return Shift(
        dx_px=dx, dy_px=-0.1, sigma_x_px=0.02, sigma_y_px=0.03, quality=float("nan"), valid=True
    )


def test_shifts_and_lines_come_back_to_the_last_bit():
    found = Registered(
        shifts=[shift(0.1), no_shift("blank: all pixels are alike"), shift(1 / 3)],
        lines=[np.arange(4, dtype=np.uint32) + k for k in range(3)],
    )
    back = pickle.loads(pickle.dumps(found))
    assert repr(back.shifts) == repr(found.shifts)
    assert [line.dtype for line in back.lines] == [np.uint32] * 3
    assert np.array_equal(back.lines, found.lines)


def test_lines_of_counts_and_of_grey_levels_keep_their_kinds():
    found = Registered(shifts=[shift(0.0)] * 2, lines=[np.ones(4, np.uint32), np.ones(4)])
    back = pickle.loads(pickle.dumps(found))
    assert [line.dtype for line in back.lines] == [np.uint32, np.float64]


def test_nothing_comes_back_as_nothing():
    assert pickle.loads(pickle.dumps(Registered())) == Registered()
