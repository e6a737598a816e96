"""Where a session comes from: versions, machine, files. No names, no secrets."""

import hashlib
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("lamella", "numpy", "scipy", "pandas", "h5py", "pyvisa", "pyvisa-py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What made a session.

    Parameters
    ----------
    versions
        Version of each package; those not installed are left out.
    host
        Operating system, processor and Python; neither host nor user name.
    files
        SHA-256, in hexadecimal, of each file that went in, by its role.
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    host: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def collect_provenance(files: Mapping[str, Path] | None = None) -> Provenance:
    """Ask the interpreter, the machine and the files where this session comes from.

    Parameters
    ----------
    files
        Files that went in, by their role, such as ``"experiment"``. They are read
        whole: call it on a thread when an event loop runs.

    Returns
    -------
    Provenance
        The answers.

    Raises
    ------
    OSError
        A file cannot be read.
    """
    return Provenance(
        versions=_versions(),
        host={
            "system": platform.system(),
            "release": platform.release(),
            "machine": platform.machine(),
            "implementation": platform.python_implementation(),
            "processors": str(os.cpu_count() or 0),
        },
        files={role: hash_file(path) for role, path in (files or {}).items()},
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
