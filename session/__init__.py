"""The session: one HDF5 file that holds an experiment, readable for decades."""

from session.reader import Session

__all__ = ["Session"]
