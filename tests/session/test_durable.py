"""The disk is asked again and again; when it fails, that is said."""

import errno
import os
import threading

import pytest

from session.durable import Syncer


def test_syncs_follow_each_other_until_the_end(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x")
    synced = threading.Semaphore(0)
    inodes = set()

    def sync(descriptor):
        inodes.add(os.fstat(descriptor).st_ino)
        synced.release()

    with Syncer(path, interval_s=0.0, sync=sync) as syncer:
        for _ in range(3):
            assert synced.acquire(timeout=10)
        syncer.check()
    assert inodes == {path.stat().st_ino}


def test_the_last_sync_comes_when_all_is_written(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    calls = []
    with Syncer(tmp_path / "file", interval_s=1000.0, sync=calls.append) as syncer:
        assert calls == []
        syncer.finish()
    assert len(calls) == 1


def test_a_sync_that_failed_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"x")

    def fail(_):
        raise OSError(errno.EIO, "Input/output error")

    with Syncer(tmp_path / "file", interval_s=0.0, sync=fail) as syncer:
        syncer._thread.join(10)
        with pytest.raises(OSError, match="sync: Input/output error"):
            syncer.check()
        with pytest.raises(OSError, match="sync: Input/output error"):
            syncer.finish()
