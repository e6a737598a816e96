"""What can go wrong with a camera.

CameraError
+-- UnknownCamera     no driver of that name
+-- CameraLost        the connection is gone
+-- FramingLost       bytes that make no sense: we do not guess where a frame begins
"""


class CameraError(Exception):
    """Something is wrong with a camera; says with which, and what was expected."""


class UnknownCamera(CameraError):
    """There is no such driver."""


class CameraLost(CameraError):
    """The connection is gone, or nothing comes any more."""


class FramingLost(CameraError):
    """The stream makes no sense."""
