"""kill -9 of the runner and of the recorder, at moments that nobody chose."""

import os
import random
import subprocess
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pytest

from session import Session
from session.recover import recover
from session.validate import Severity, validate

HERE = Path(__file__).parent
CLIENT = HERE / "streaming_client.py"


@dataclass
class Said:
    """What a client said before it went: counts and their times, checksums."""

    samples: list[tuple[int, int]] = field(default_factory=list)
    frames: list[tuple[int, int]] = field(default_factory=list)
    checksums: list[int] = field(default_factory=list)
    words: dict[str, int] = field(default_factory=dict)


def start_client(path, *arguments):
    return subprocess.Popen(
        [sys.executable, CLIENT, path, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=HERE.parents[1],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
    )


def understand(lines):
    said = Said()
    for line in lines:
        word, *numbers = line.split()
        if word == "frames" and len(numbers) == 3:
            said.frames.append((int(numbers[0]), int(numbers[1])))
            said.checksums.append(int(numbers[2]))
        elif word == "samples" and len(numbers) == 2:
            said.samples.append((int(numbers[0]), int(numbers[1])))
        elif word in ("started", "killed", "lost"):
            said.words[word] = int(numbers[1])
    return said


def assert_frames_are_right(path, said, count):
    with Session.open(path) as session:
        frames, table = session.frames("camera"), session.frame_table("camera")
        assert len(frames) >= count
        np.testing.assert_array_equal(table["index"], np.arange(len(frames)))
        for number, pixels in enumerate(frames):
            checksum = zlib.crc32(pixels.tobytes())
            assert checksum == table["checksum"][number]
            if number < len(said.checksums):
                assert checksum == said.checksums[number]


@pytest.mark.parametrize("attempt", range(3))
def test_a_killed_runner_loses_nothing_that_was_acknowledged(tmp_path, attempt):
    path = tmp_path / "killed.h5"
    with start_client(path) as client:
        lines = [client.stdout.readline()]
        wanted = random.randint(20, 250)
        lines += [client.stdout.readline() for _ in range(wanted)]
        client.kill()
        # The recorder shares this pipe: it ends when the recorder has ended.
        lines += client.stdout.read().splitlines()
        complaints = client.stderr.read()
    said = understand(lines)
    assert len(said.frames) > 3
    assert "leaked" not in complaints
    assert "Traceback" not in complaints
    with h5py.File(path, "r") as file:
        assert file["entry/exit_reason"].asstr()[()] == "runner lost"
    with Session.open(path) as session:
        assert session.end_time > session.start_time
        samples = session.sample_columns()
        assert len(samples["step"]) >= said.samples[-1][0]
        np.testing.assert_array_equal(samples["step"], np.arange(len(samples["step"])))
        (event,) = session.events()
        assert (event.kind, event.source) == ("fault", "recorder")
        assert event.data["samples"] == len(samples["step"])
    assert_frames_are_right(path, said, said.frames[-1][0])
    assert validate(path) == []


@pytest.mark.parametrize("attempt", range(3))
def test_a_killed_recorder_leaves_a_file_that_opens(tmp_path, attempt):
    path = tmp_path / "killed.h5"
    delay_s = random.uniform(1.1, 1.6)
    with start_client(path, delay_s) as client:
        output, complaints = client.communicate(timeout=15)
    said = understand(output.splitlines())
    assert client.returncode == 0, complaints
    assert "lost" in said.words, complaints
    assert "leaked" not in complaints
    # At most one second before the kill may be missing.
    limit_ns = said.words["killed"] - 1_000_000_000
    old_samples = [count for count, t_ns in said.samples if t_ns < limit_ns]
    old_frames = [count for count, t_ns in said.frames if t_ns < limit_ns]
    assert old_samples
    assert old_frames
    with Session.open(path) as session:
        assert session.exit_reason == "not finished"
        assert len(session.sample_columns()["step"]) >= old_samples[-1]
    assert_frames_are_right(path, said, old_frames[-1])
    assert {problem.severity for problem in validate(path)} == {Severity.WARNING}

    recovered = recover(path)
    assert recovered.missing == ()
    assert validate(recovered.path) == []
    assert_frames_are_right(recovered.path, said, old_frames[-1])
    with Session.open(recovered.path) as session:
        assert session.exit_reason == "recorder lost"
        assert session.events()[-1].source == "recover"
        assert len(session.sample_columns()["step"]) >= old_samples[-1]
    assert recover(recovered.path).done == ()
