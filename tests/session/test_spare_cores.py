"""Work that had to wait for a core is left undone for a while."""

import threading

import pytest

from session.spare_cores import SpareCores


class Computer:
    """A clock, and what a thread had of a core."""

    def __init__(self):
        self.now_s = self.spent_s = 100.0
        self.spare = SpareCores(now_s=lambda: self.now_s, spent_s=lambda: self.spent_s)

    def work(self, *, needed_s, waited_s):
        with self.spare.used():
            self.now_s += needed_s + waited_s
            self.spent_s += needed_s

    def rests_s(self):
        """Return how long from now on there is no core, and be there."""
        rested_s = 0.0
        while not self.spare.are_there:
            self.now_s += 0.001
            rested_s += 0.001
        return rested_s


@pytest.mark.parametrize(
    ("needed_s", "waited_s", "rests"),
    [
        (1e-3, 0.0, False),
        (1e-3, 0.7e-3, False),  # somebody woke up
        (1e-3, 0.9e-3, True),
        (15e-3, 5e-3, False),
        (15e-3, 9e-3, True),
    ],
)
def test_work_that_waited_longer_than_half_of_what_it_needs_was_in_the_way(
    needed_s, waited_s, rests
):
    computer = Computer()
    assert computer.spare.are_there
    computer.work(needed_s=needed_s, waited_s=waited_s)
    assert computer.spare.are_there is not rests


def test_the_rest_doubles_up_to_a_second_and_gets_shorter_as_cores_are_free():
    computer = Computer()
    rests_s = []
    for _ in range(8):
        computer.work(needed_s=1e-3, waited_s=0.1)
        rests_s.append(computer.rests_s())
    assert rests_s == pytest.approx([0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0], abs=2e-3)
    for _ in range(3):
        computer.work(needed_s=1e-3, waited_s=0.0)
        assert computer.spare.are_there
    computer.work(needed_s=1e-3, waited_s=0.1)
    assert computer.rests_s() == pytest.approx(0.25, abs=2e-3)


def test_a_thread_that_stands_still_counts_as_one_that_waits():
    spare, moment = SpareCores(), threading.Event()
    with spare.used():
        moment.wait(0.02)
    assert not spare.are_there
