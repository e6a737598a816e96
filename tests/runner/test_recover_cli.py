"""``lamella recover``: in words, as JSON, and its exit codes."""

import json

import pytest
from click.testing import CliRunner

from runner.cli import main
from session.journal import Journal, journal_path
from session.journal_words import begin
from session.records import SessionHeader
from session.writer import SessionWriter

HEADER = SessionHeader(
    title="t",
    experiment_text="",
    start_time="2025-03-01T10:00:00+00:00",
    host_start_ns=0,
    simulated=True,
)


@pytest.fixture
def killed(tmp_path):
    path = tmp_path / "s.h5"
    journal = Journal(path)
    begin(journal, HEADER)
    writer = SessionWriter(path, HEADER, journal=journal, monotonic_ns=lambda: 0)
    writer.append_event(5, "note", "operator", "here", "{}")
    journal.close()
    image = path.read_bytes()
    writer._journal = None
    writer.close()
    path.write_bytes(image)
    return path


def invoke(*words):
    return CliRunner().invoke(main, ["recover", *map(str, words)])


def test_a_whole_session_is_made_beside(killed):
    found = invoke(killed)
    assert found.exit_code == 0, found.output
    assert "1 rows of events taken from the journal" in found.output
    assert "nothing is missing" in found.output
    assert (killed.parent / "s.recovered.h5").exists()
    again = invoke(killed)
    assert again.exit_code == 2
    assert "exists already" in again.output


def test_what_is_missing_is_told(killed):
    with journal_path(killed).open("r+b") as stream:
        stream.truncate(journal_path(killed).stat().st_size - 1)
    found = invoke(killed, "-o", killed.parent / "w.h5", "--json")
    assert found.exit_code == 1
    said = json.loads(found.output.splitlines()[-1])
    assert said["path"].endswith("w.h5")
    assert "not whole" in said["missing"][0]


def test_a_finished_session_needs_nothing(tmp_path):
    with SessionWriter(tmp_path / "s.h5", HEADER) as writer:
        writer.finish("done", "")
    found = invoke(tmp_path / "s.h5")
    assert found.exit_code == 0
    assert "nothing to do" in found.output


def test_what_is_no_session_is_refused(tmp_path):
    found = invoke(tmp_path / "none.h5")
    assert found.exit_code == 2
    assert "no such file" in found.output
