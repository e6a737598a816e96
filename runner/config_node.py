"""The file of a camera node: what it films with, where it shows it, and where it keeps it."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError

from cameras.errors import UnknownCamera
from cameras.options import ArmedBy, CameraOptions
from cameras.registry import camera_class
from runner.bus_address import BusAddress
from runner.bus_security import BadCredentials, BusSecurity
from runner.config import TrackTable
from runner.config_fields import FrameRate, Length, Table
from runner.problems import ExperimentError, Problem, find_line, spelled
from runner.track_options import check_tracks, read_options

STREAM = "stream"
MAX_FILE_BYTES = 1_000_000


class NodeCameraTable(Table):
    """``[camera]``: the keys of an experiment's, where only the driver must be named."""

    driver: str
    frame_rate: FrameRate | None = None
    pixel_size: Length | None = None
    host: str = "127.0.0.1"
    port: int = 0
    control_port: int = 0
    data_port: int = 0
    path: str = ""
    pattern: str = ""
    node: str = ""
    armed_by: Literal["lamella", "microscope"] = "lamella"


class NodeBusTable(Table):
    """``[bus]``: the keys of an experiment's, and the name of the session in the topics."""

    broker: str
    lab: str = "lab"
    session: str = "cameras"
    version: Literal[3, 5] = 5
    username: str = ""
    password_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    command_key_file: str | None = None


class NodeTable(Table):
    """``[node]``."""

    name: str
    keep: str
    listen: str = "127.0.0.1"
    frames_port: int = 5030
    clock_port: int = 5031
    begin: Literal["at once", "on command"] = "at once"
    spool: str | None = None
    spool_mib: int = Field(default=64, ge=1)
    film_thickness: Length | None = None


class NodeFile(Table):
    """The whole file."""

    camera: NodeCameraTable
    node: NodeTable
    bus: NodeBusTable | None = None
    track: list[TrackTable] = Field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTrack:
    """One tracker, the name of its track, and what the tracker is told, in SI units."""

    name: str
    tracker: str
    options: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """What a camera node is asked to do. Load one with `load` or `loads`.

    Parameters
    ----------
    keep
        Folder for sessions; None where the frames are streamed on.
    spool
        Folder for messages that the broker has not taken; None without a bus.
    """

    name: str
    text: str
    driver: str
    options: CameraOptions
    keep: Path | None
    listen: str
    frames_port: int
    clock_port: int
    on_command: bool
    bus: BusAddress | None
    spool: Path | None
    spool_bytes: int
    tracks: tuple[NodeTrack, ...]
    film_thickness_m: float

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file of a node.

        Raises
        ------
        ExperimentError
            All that is wrong with it, each with its line.
        """
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise _refusal(str(path), "", ("file",), "is too large to be a node's file")
            text = path.read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise _refusal(str(path), "", ("file",), f"cannot be read: {error}") from error
        return cls.loads(text, name=str(path), folder=path.parent)

    @classmethod
    def loads(cls, text: str, *, name: str = "node", folder: Path | None = None) -> Self:
        """Read the text of a node's file; relative paths start from ``folder``.

        Raises
        ------
        ExperimentError
            All that is wrong with it, each with its line.
        """
        text = text.replace("\r\n", "\n")
        try:
            file = NodeFile.model_validate(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise _refusal(name, text, ("TOML",), f"{error}; see toml.io") from error
        except ValidationError as error:
            raise ExperimentError(
                name,
                [
                    Problem(
                        key=spelled(tuple(found["loc"])),
                        line=find_line(text, tuple(found["loc"])),
                        what=found["msg"].removeprefix("Value error, "),
                    )
                    for found in error.errors()
                ],
            ) from error
        root = folder or Path()
        problems = [
            Problem(key=spelled(key), line=find_line(text, key), what=what)
            for key, what in _cross_checks(file, root)
        ]
        if problems:
            raise ExperimentError(name, problems)
        return cls._build(file, text, root)

    @classmethod
    def _build(cls, file: NodeFile, text: str, root: Path) -> Self:
        node, keep = file.node, None if file.node.keep == STREAM else root / file.node.keep
        spool = None
        if file.bus is not None and keep is not None:
            spool = keep / f"{node.name}.spool" if node.spool is None else root / node.spool
        return cls(
            name=node.name,
            text=text,
            driver=file.camera.driver,
            options=_options(file.camera, root),
            keep=keep,
            listen=node.listen,
            frames_port=node.frames_port,
            clock_port=node.clock_port,
            on_command=node.begin == "on command",
            bus=_address(file, root),
            spool=spool,
            spool_bytes=node.spool_mib * 1024 * 1024,
            tracks=tuple(
                NodeTrack(
                    name=t.name,
                    tracker=t.tracker,
                    options=read_options(t.tracker, t.model_extra or {}).values,
                )
                for t in file.track
            ),
            film_thickness_m=math.nan if node.film_thickness is None else node.film_thickness,
        )


def _refusal(name: str, text: str, key: tuple[str, ...], what: str) -> ExperimentError:
    return ExperimentError(name, [Problem(key=spelled(key), line=find_line(text, key), what=what)])


def _options(camera: NodeCameraTable, root: Path) -> CameraOptions:
    return CameraOptions(
        host=camera.host,
        port=camera.port,
        control_port=camera.control_port,
        data_port=camera.data_port,
        path=str(root / camera.path) if camera.path else "",
        pattern=camera.pattern,
        node=camera.node,
        armed_by=ArmedBy(camera.armed_by),
        frame_rate_Hz=math.nan if camera.frame_rate is None else camera.frame_rate,
        pixel_size_m=math.nan if camera.pixel_size is None else camera.pixel_size,
    )


def _address(file: NodeFile, root: Path) -> BusAddress | None:
    bus = file.bus
    if bus is None:
        return None
    host, _, port = bus.broker.rpartition(":")
    return BusAddress(
        host=host,
        port=int(port),
        lab=bus.lab,
        session=bus.session,
        node=file.node.name,
        security=_security(bus, root),
        version=bus.version,
    )


def _security(bus: NodeBusTable, root: Path) -> BusSecurity:
    def path(text: str | None) -> Path | None:
        return None if text is None else root / text

    return BusSecurity(
        username=bus.username,
        password_file=path(bus.password_file),
        ca_file=path(bus.ca_file),
        cert_file=path(bus.cert_file),
        key_file=path(bus.key_file),
        command_key_file=path(bus.command_key_file),
    )


_Found = list[tuple[tuple[str | int, ...], str]]


def _cross_checks(file: NodeFile, root: Path) -> _Found:
    return [
        *_check_camera(file.camera),
        *_check_node(file),
        *_check_bus(file, root),
        *_check_tracks(file),
    ]


def _check_camera(camera: NodeCameraTable) -> _Found:
    try:
        needs = camera_class(camera.driver).needs
    except UnknownCamera as error:
        hint = "; for a simulated one: lamella mock camera, and the driver stream"
        return [(("camera", "driver"), f"{error}{hint}" if camera.driver == "mock" else str(error))]
    return [
        (("camera", name), f"is missing; the driver {camera.driver} needs it")
        for name in needs
        if not getattr(camera, name)
    ]


def _check_node(file: NodeFile) -> _Found:
    node = file.node
    found: _Found = [
        (("node", name), "is no port; those lie between 0 and 65535, 0 for any that is free")
        for name in ("frames_port", "clock_port")
        if not 0 <= getattr(node, name) < 65536
    ]
    if not node.name or not node.name.replace("-", "").replace("_", "").isalnum():
        found.append((("node", "name"), "is made of letters, digits, - and _"))
    if not node.keep:
        found.append((("node", "keep"), 'is a folder, or "stream" to hand the frames on'))
    if node.begin == "on command" and (file.bus is None or file.bus.command_key_file is None):
        found.append((("node", "begin"), "needs a command_key_file under [bus]"))
    if node.begin == "on command" and node.keep == STREAM:
        found.append((("node", "begin"), "is for a node that keeps; a stream begins when asked"))
    return found


def _check_bus(file: NodeFile, root: Path) -> _Found:
    if file.bus is None:
        return []
    host, _, port = file.bus.broker.rpartition(":")
    if not host or not port.isdigit():
        return [(("bus", "broker"), "is a host and a port, such as 127.0.0.1:1883")]
    try:
        _security(file.bus, root).refuse_unfit(host)
    except BadCredentials as error:
        return [(("bus",), str(error))]
    return []


def _check_tracks(file: NodeFile) -> _Found:
    found: _Found = []
    if file.track and file.node.keep == STREAM:
        found.append((("track",), "is for a node that keeps its frames; leave it out"))
    return [*found, *check_tracks(file.track)]
