"""A claim on an instrument: one program of this computer at a time.

Many links let a second program in, and then each gets the other's replies and undoes its
settings. The claim is a locked file, so that it ends with its owner, however that ended.
"""

import hashlib
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from potentiostat.errors import LinkError

OWNER_BYTE = 64  # beyond what is written: Windows does not let others read a locked part


class Claim:
    """Held while the context lasts.

    Parameters
    ----------
    resource
        VISA resource name; as it is written, but for upper and lower case.
    folder
        For the locked files; the system's own for temporary files where it is None.
    """

    def __init__(self, resource: str, folder: Path | None = None) -> None:
        self._resource = resource
        name = hashlib.sha256(resource.upper().encode()).hexdigest()[:24]
        self._path = (folder or Path(tempfile.gettempdir())) / f"lamella-{name}.claim"
        self._file = -1

    def __enter__(self) -> Self:
        """Claim the instrument.

        Raises
        ------
        LinkError
            Another program has it, or a claim cannot be written.
        """
        try:
            while not self._open_and_lock():
                pass  # its last owner has just let go of the file and removed it
        except BlockingIOError as error:
            raise LinkError(
                f"{self._resource}: the process {self._owner()} of this computer is connected "
                "to it already; end that first: an instrument obeys one program at a time"
            ) from error
        except OSError as error:
            raise LinkError(
                f"{self._resource}: cannot be claimed ({error}); make {self._path.parent} a "
                "folder in which this user may write"
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go."""
        file, self._file = self._file, -1
        if sys.platform == "win32":
            os.close(file)
            with suppress(OSError):  # its next owner may be quicker
                self._path.unlink()
        else:
            with suppress(OSError):  # another user's, left by a program that was killed
                self._path.unlink()  # still locked: nobody takes a file without a name
            os.close(file)

    def _open_and_lock(self) -> bool:
        """Lock the file; False when it was removed meanwhile."""
        file = self._open()
        try:
            _lock(file)
            if not _is_file_of(file, self._path):
                os.close(file)
                return False
        except BaseException:
            os.close(file)
            raise
        os.ftruncate(file, 0)
        os.write(file, str(os.getpid()).encode())
        self._file = file
        return True

    def _open(self) -> int:
        with suppress(FileNotFoundError):
            return os.open(self._path, os.O_RDWR)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT)
        with suppress(OSError):  # created by another user in the same moment
            self._path.chmod(0o666)  # the next one may be another user
        return file

    def _owner(self) -> str:
        try:
            return self._path.read_text(encoding="ascii").strip() or "that is beginning"
        except (OSError, UnicodeDecodeError):
            return "that is beginning"


def _is_file_of(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        """Lock, or raise BlockingIOError."""
        os.lseek(file, OWNER_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(str(error)) from error
        os.lseek(file, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(file: int) -> None:
        """Lock, or raise BlockingIOError."""
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
