"""Which session another one goes on from: its name, its bytes, and when it began."""

from dataclasses import dataclass

from session.records import AttributeValue

LINK = "continues"  # group below the entry


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLink:
    """One session, as another one names it.

    Parameters
    ----------
    path
        Where it was.
    sha256
        Of its bytes then; results that were written into it later change them.
    start_time
        Its own, ISO 8601: a session keeps it for ever.
    """

    path: str
    sha256: str
    start_time: str

    def attributes(self) -> dict[str, AttributeValue]:
        """Return it as attributes."""
        return {"path": self.path, "sha256": self.sha256, "start_time": self.start_time}
