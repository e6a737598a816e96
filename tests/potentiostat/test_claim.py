"""One program for one instrument."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from potentiostat.claim import Claim
from potentiostat.errors import LinkError

RESOURCE = "GPIB0::24::INSTR"
ROOT = Path(__file__).parents[2]
HOLDER = """
import sys
from pathlib import Path
from potentiostat.claim import Claim
with Claim(sys.argv[1], Path(sys.argv[2])):
    print("mine", flush=True)
    sys.stdin.read()
"""


def test_a_second_program_is_told_who_has_it(tmp_path):
    with Claim(RESOURCE, tmp_path), pytest.raises(LinkError, match=f"process {os.getpid()} of"):
        Claim(RESOURCE.lower(), tmp_path).__enter__()
    with Claim(RESOURCE, tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_another_instrument_is_free(tmp_path):
    with Claim(RESOURCE, tmp_path), Claim("GPIB0::25::INSTR", tmp_path):
        assert len(list(tmp_path.iterdir())) == 2


def test_a_claim_ends_with_its_owner_however_that_ended(tmp_path):
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLDER, RESOURCE, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with owner:
        assert owner.stdout.readline() == "mine\n"
        with pytest.raises(LinkError, match=f"process {owner.pid} of this computer"):
            Claim(RESOURCE, tmp_path).__enter__()
        owner.kill()
        owner.wait()
    with Claim(RESOURCE, tmp_path):
        pass


def test_a_claim_that_cannot_be_written_says_what_would_do(tmp_path):
    with pytest.raises(LinkError, match="may write"):
        Claim(RESOURCE, tmp_path / "nowhere").__enter__()


def test_of_many_that_come_and_go_one_has_it_at_a_time(tmp_path):
    inside, most, taken = [], [], []

    def come_and_go():
        had = 0
        while had < 60:  # how often one comes in vain is the machine's affair
            try:
                with Claim(RESOURCE, tmp_path):
                    inside.append(1)
                    time.sleep(1e-4)  # the others would come in now, if they could
                    most.append(len(inside))
                    inside.pop()
                    taken.append(1)
                    had += 1
            except LinkError:
                pass

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 240
    assert max(most) == 1
    assert list(tmp_path.iterdir()) == []
