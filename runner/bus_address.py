"""Where a run is shown, what comes back from there, and what can go wrong."""

from dataclasses import dataclass, field

from runner.bus_security import BusSecurity

ANSWER_S = 5.0
OFFLINE, RUNNING, ENDED = "offline", "running", "ended"  # of whoever shows something
KEEP_ALIVE_S = 5  # the broker shows our last will after half as long again


class BusError(Exception):
    """The broker cannot be reached, or refused something."""


class PublishRefused(BusError):
    """The broker took a message and did not accept it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BusAddress:
    """Where a run is shown.

    Parameters
    ----------
    host, port
        Of the broker.
    lab, session, node
        Parts of every topic: ``lamella/<lab>/<session>/<node>/...``.
    security
        Secrets and certificates.
    version
        Of the protocol. With 3, for a broker that knows no 5, refusals are not heard and
        a retained message cannot be told, so that no command is heard either.
    keep_alive_s
        A broker that is silent for longer is gone.
    answer_s
        The same for one that owes us an answer.
    """

    host: str
    port: int
    lab: str
    session: str
    node: str = "runner"
    security: BusSecurity = field(default_factory=BusSecurity)
    version: int = 5
    keep_alive_s: int = KEEP_ALIVE_S
    answer_s: float = ANSWER_S

    @property
    def prefix(self) -> str:
        """Return what every topic begins with."""
        parts = (self.lab, self.session, self.node)
        return "lamella/" + "/".join(part.translate(_UNSAFE) for part in parts)

    @property
    def broker(self) -> str:
        """Return the broker as people write it."""
        return f"{self.host}:{self.port}"


# A wildcard or a slash in a name would change the topic.
_UNSAFE = str.maketrans({"/": "_", "+": "_", "#": "_", "\0": "_"})


@dataclass(frozen=True, slots=True)
class BusMessage:
    """What came: its whole topic, its bytes, and whether the broker had kept it."""

    topic: str
    payload: bytes
    retained: bool


@dataclass(slots=True)
class BusCounters:
    """What became of the messages."""

    published: int = 0
    dropped: int = 0
    refused: int = 0
    connects: int = 0
    commands: int = 0
    commands_refused: int = 0
