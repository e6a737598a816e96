"""Where a run is shown over MQTT, as an experiment file says, and what is wrong with that."""

from dataclasses import dataclass, field
from pathlib import Path

from runner.bus_security import BadCredentials, BusSecurity
from runner.config import ExperimentTable
from runner.problems import Key

_Found = list[tuple[Key, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BusSettings:
    """Where a run is shown over MQTT."""

    host: str
    port: int
    lab: str
    security: BusSecurity = field(default_factory=BusSecurity)
    version: int = 5


def bus_settings(tables: ExperimentTable, folder: Path) -> BusSettings | None:
    """Return where a file shows its run; None where it does not."""
    bus = tables.bus
    if bus is None:
        return None
    host, _, port = bus.broker.rpartition(":")

    def path(text: str | None) -> Path | None:
        return None if text is None else folder / text

    security = BusSecurity(
        username=bus.username,
        password_file=path(bus.password_file),
        ca_file=path(bus.ca_file),
        cert_file=path(bus.cert_file),
        key_file=path(bus.key_file),
        command_key_file=path(bus.command_key_file),
    )
    return BusSettings(
        host=host, port=int(port), lab=bus.lab, security=security, version=bus.version
    )


def check_bus(tables: ExperimentTable) -> _Found:
    """Return what is wrong with the bus."""
    if tables.bus is None:
        return []
    if not tables.bus.broker.rpartition(":")[2].isdigit():
        return [(("bus", "broker"), "is a host and a port, such as 127.0.0.1:1883")]
    bus = bus_settings(tables, Path())
    try:
        if bus is not None:
            bus.security.refuse_unfit(bus.host)
    except BadCredentials as error:
        return [(("bus",), str(error))]
    return []
