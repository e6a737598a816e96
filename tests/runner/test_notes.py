"""Notes of an operator, and the signature, by their commands."""

import shutil

import pytest
from click.testing import CliRunner

from runner.cli import main
from runner.notes import BadNote, add_note
from session import Session
from session.validate import validate
from session.writer import SessionWriter
from tests.session.conftest import make_header, make_samples


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("notes") / "a.h5"
    with SessionWriter(path, make_header()) as writer:
        writer.append_samples(make_samples(30))
        writer.finish("done", "2025-03-01T11:00:00+00:00")
    return path


@pytest.fixture
def session_path(written, tmp_path):
    return shutil.copy(written, tmp_path / "a.h5")


def lamella(*words, code=0):
    told = CliRunner().invoke(main, [str(word) for word in words])
    assert told.exit_code == code, told.output
    return " ".join(told.output.split())  # however wide the terminal is


def test_a_note_is_an_event_of_the_moment_that_it_is_about(session_path):
    lamella("note", session_path, " the beam was moved ", "--at", "500 ms")
    lamella("note", session_path, "seen at the end: 5 µm crack")
    with Session.open(session_path) as session:
        notes = [e for e in session.events() if e.kind == "note"]
        last_ns = session.sample_columns()["t_ns"][-1]
        start_ns = session.host_start_ns
    assert [n.message for n in notes] == ["the beam was moved", "seen at the end: 5 µm crack"]
    assert [n.t_ns for n in notes] == [start_ns + 500_000_000, last_ns]
    assert {n.source for n in notes} == {"operator"}
    assert notes[0].data["written_at"].endswith("+00:00")
    assert validate(session_path) == []


@pytest.mark.parametrize(
    ("text", "at_s", "why"),
    [(" ", None, "1 to 10000"), ("x" * 10_001, None, "1 to 10000"), ("x", 99.0, "outside of")],
)
def test_a_note_that_cannot_be_kept_is_refused(session_path, text, at_s, why):
    with pytest.raises(BadNote, match=why):
        add_note(session_path, text, at_s=at_s)
    with Session.open(session_path) as session:
        assert len(session.events()) == 0


def test_a_signed_session_verifies_until_something_is_written_into_it(session_path, tmp_path):
    (tmp_path / "key").write_bytes(bytes(32))
    line = lamella("sign", session_path, "--key", tmp_path / "key")
    assert line.split() == [*(session_path.parent / "a.h5.sha256").read_text().split()]
    assert "no problem found" in lamella("verify", session_path, "--key", tmp_path / "key")
    lamella("note", session_path, "afterwards")
    assert "is not what was signed" in lamella("verify", session_path, code=1)
    assert "--overwrite" in lamella("sign", session_path, code=2)
