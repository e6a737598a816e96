"""A port of this computer for the live view, which nobody else reaches."""

import socket
import sys

LOOPBACK = "127.0.0.1"
BACKLOG = 64


class ViewError(Exception):
    """The live view cannot be served; the message says why, and what would do."""


def listen(port: int) -> socket.socket:
    """Return a socket that listens on loopback; on a free port where it is 0.

    Raises
    ------
    ViewError
        The port cannot be had.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if sys.platform == "win32":  # there, REUSEADDR would let others share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)  # noqa: FBT003 - the name is Python's
    except OSError as error:
        listener.close()
        raise ViewError(
            f"the view cannot have port {port} ({error.strerror}): name another with --view-port, "
            "leave it out for a free one, or run with --no-view"
        ) from error
    return listener
