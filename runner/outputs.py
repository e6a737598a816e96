"""The files that a command writes: refused when they exist, unless asked otherwise."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from session.journal import journal_path


class OutputRefused(Exception):
    """An output file cannot be written; the message says what would do."""


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise OutputRefused where a file would be lost or cannot be written."""
    if path.is_dir():
        raise OutputRefused(f"{path} is a folder; name a file in it")
    if path.exists() and not overwrite:
        raise OutputRefused(f"{path} exists already; choose another name, or add --overwrite")
    if not path.absolute().parent.is_dir():
        raise OutputRefused(f"the folder {path.absolute().parent} does not exist; make it first")


def truth_path(session: Path) -> Path:
    """Return where simulated hardware leaves its truth: beside the session."""
    return session.with_name(session.stem + ".truth.h5")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What one run writes."""

    session: Path
    truth: Path
    report: Path | None

    @classmethod
    def claim(cls, *, session: Path, report: str | Path | None, overwrite: bool) -> Self:
        """Check all outputs before anything is opened; nothing is touched yet.

        Raises
        ------
        OutputRefused
            One of them exists, or has no folder.
        """
        left = journal_path(session)
        if left.exists() and not overwrite:
            raise OutputRefused(
                f"{left} was left by a run that died and may hold what {session} does not: "
                f"`lamella recover {session}` makes a whole session of both; choose another name "
                "for this run, or add --overwrite"
            )
        page = None if report is None else Path(report)
        claimed = cls(session=session, truth=truth_path(session), report=page)
        for path in claimed._all():
            refuse_existing(path, overwrite=overwrite)
        if page is not None and page.absolute() == session.absolute():
            raise OutputRefused(f"session and report are the same file, {session}")
        return claimed

    def keep(self, path: Path) -> None:
        """Raise OutputRefused where a file that is to be read would be replaced."""
        if path.resolve() in {output.resolve() for output in self._all()}:
            raise OutputRefused(
                f"{path} is never written again; name another file for what follows"
            )

    def clear(self) -> None:
        """Remove what was there before: called once the run can begin."""
        for path in self._all():
            path.unlink(missing_ok=True)

    def _all(self) -> list[Path]:
        paths = [self.session, journal_path(self.session), self.truth]
        return paths if self.report is None else [*paths, self.report]
