"""Output files are refused before anything is opened, and kept until a run begins."""

import pytest

from runner.outputs import OutputRefused, Outputs, refuse_existing, truth_path
from session.journal import journal_path


def claim(folder, *, report=None, overwrite=False):
    return Outputs.claim(
        session=folder / "a.h5",
        report=None if report is None else folder / report,
        overwrite=overwrite,
    )


def test_new_names_are_taken(tmp_path):
    outputs = claim(tmp_path, report="a.html")
    assert outputs.truth == truth_path(tmp_path / "a.h5") == tmp_path / "a.truth.h5"
    outputs.clear()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.h5", "a.truth.h5", "a.html"])
def test_an_existing_file_is_refused_and_kept(tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(OutputRefused, match="--overwrite"):
        claim(tmp_path, report="a.html")
    assert (tmp_path / name).read_text() == "precious"


def test_overwrite_removes_only_once_the_run_begins(tmp_path):
    (tmp_path / "a.h5").write_text("old")
    outputs = claim(tmp_path, overwrite=True)
    assert (tmp_path / "a.h5").exists()
    outputs.clear()
    assert not (tmp_path / "a.h5").exists()


def test_a_folder_is_no_file_even_with_overwrite(tmp_path):
    with pytest.raises(OutputRefused, match="is a folder"):
        refuse_existing(tmp_path, overwrite=True)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(OutputRefused, match="does not exist; make it"):
        refuse_existing(tmp_path / "no" / "a.h5", overwrite=False)


def test_session_and_report_must_differ(tmp_path):
    with pytest.raises(OutputRefused, match="same file"):
        claim(tmp_path, report="a.h5")


def test_a_journal_that_a_dead_run_left_is_not_lost_unasked(tmp_path):
    session = tmp_path / "a.h5"
    left = journal_path(session)
    left.write_bytes(b"x")
    with pytest.raises(OutputRefused, match=r"lamella recover .*a\.h5"):
        Outputs.claim(session=session, report=None, overwrite=False)
    assert left.exists()
    Outputs.claim(session=session, report=None, overwrite=True).clear()
    assert not left.exists()
