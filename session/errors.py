"""What can go wrong with a session file.

SessionError
    SessionRefused    a file, table or attribute that is not acceptable
    SessionExists     the file to be written is there already
    RecorderLost      the recorder is gone, with what it had not yet been told
    JournalFailed     the disk does not take the journal; an OSError, too
"""


class SessionError(Exception):
    """Base of all errors of this package."""


class SessionRefused(SessionError):
    """A file, table or attribute is not acceptable; the text says what would do."""


class SessionInUse(SessionRefused):
    """Somebody else holds the lock of a file, and held it for as long as was waited."""


class SessionExists(SessionError):
    """The file to be written is there already; nothing is ever overwritten."""


class JournalFailed(SessionError, OSError):
    """The disk does not take the journal; the session file may be well."""


class RecorderLost(SessionError):
    """The recorder died or could not write; the text says why, as far as known."""


# What h5py raises when the bytes of a file make no sense.
HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError)
