"""The signature of a session: read by sha256sum, and wrong for any changed byte."""

import hashlib
import hmac
import shutil
import subprocess

import pytest

from session.errors import SessionExists, SessionRefused
from session.manifest import beside, check_signature, sign
from session.writer import SessionWriter
from tests.session.conftest import make_header

KEY = bytes(range(32))


@pytest.fixture
def session_path(write_session):
    return write_session("a session.h5", frames=3)


def test_the_sidecar_is_a_line_of_sha256sum(session_path):
    signed = sign(session_path)
    digest = hashlib.sha256(session_path.read_bytes()).hexdigest()
    assert signed.sidecar.read_bytes() == f"{digest}  a session.h5\n".encode()
    assert signed.sha256 == digest
    assert signed.keyed is None
    assert list(check_signature(session_path)) == []
    if (tool := shutil.which("sha256sum")) is not None:
        command = [tool, "--strict", "-c", signed.sidecar.name]
        subprocess.run(command, cwd=session_path.parent, check=True, capture_output=True)


def test_any_changed_byte_is_found(session_path):
    sign(session_path, key=KEY)
    whole = session_path.read_bytes()
    for place in range(0, len(whole), len(whole) // 40):
        changed = bytearray(whole)
        changed[place] ^= 1
        session_path.write_bytes(changed)
        (problem,) = check_signature(session_path)
        assert "is not what was signed in a session.h5.sha256" in problem.message
    session_path.write_bytes(whole + b"\0")
    assert len(list(check_signature(session_path, key=KEY))) == 2
    session_path.write_bytes(whole)
    assert list(check_signature(session_path, key=KEY)) == []


def test_who_has_no_key_cannot_make_the_keyed_signature_anew(session_path):
    signed = sign(session_path, key=KEY)
    right = hmac.new(KEY, session_path.read_bytes(), "sha256").hexdigest()
    assert signed.keyed.read_text().split()[0] == right
    session_path.write_bytes(session_path.read_bytes() + b"forged")
    digest = hashlib.sha256(session_path.read_bytes()).hexdigest()
    signed.sidecar.write_text(f"{digest}  {session_path.name}\n")
    assert list(check_signature(session_path)) == []
    (problem,) = check_signature(session_path, key=KEY)
    assert ".hmac" in problem.message
    signed.keyed.unlink()
    (problem,) = check_signature(session_path, key=KEY)
    assert "no signature by a key" in problem.message


@pytest.mark.parametrize("text", ["", "nonsense\n", f"{'0' * 64}  other.h5\n", "a\nb\n"])
def test_a_sidecar_that_is_none_is_told(session_path, text):
    beside(session_path, ".sha256").write_text(text)
    (problem,) = check_signature(session_path)
    assert "is no signature of a session.h5" in problem.message


def test_what_cannot_be_signed_is_refused(session_path, tmp_path):
    with SessionWriter(tmp_path / "unfinished.h5", make_header()):
        pass
    with pytest.raises(SessionRefused, match="lamella recover"):
        sign(tmp_path / "unfinished.h5")
    with pytest.raises(SessionRefused, match="at least 16"):
        sign(session_path, key=b"short")
    sign(session_path)
    with pytest.raises(SessionExists, match="--overwrite"):
        sign(session_path)
    sign(session_path, overwrite=True)
