"""What only several keys together can be wrong in, where the camera is a camera node."""

from runner.config import ExperimentTable
from runner.problems import Key

DRIVER = 'the driver "node"'


def check_node(tables: ExperimentTable) -> list[tuple[Key, str]]:
    """Return what is wrong with an experiment whose ``[camera]`` is a camera node."""
    camera, bus = tables.camera, tables.bus
    found: list[tuple[Key, str]] = []
    if camera is None:
        return found
    if not camera.node:
        found.append((("camera", "node"), f"is missing; {DRIVER} needs the node's name"))
    elif not camera.node.replace("-", "").replace("_", "").isalnum():
        found.append((("camera", "node"), "is made of letters, digits, - and _"))
    if not camera.node_session:
        found.append((("camera", "node_session"), "is the session in the node's own file"))
    if bus is None:
        what = f"{DRIVER} is reached over MQTT; add [bus] with broker and command_key_file"
        found.append((("camera", "driver"), what))
    else:
        if bus.command_key_file is None:
            what = f"needs a command_key_file: {DRIVER} is started by signed commands"
            found.append((("bus",), what))
        if bus.version != 5:
            what = f"must be 5: {DRIVER} hears no commands over an older protocol"
            found.append((("bus", "version"), what))
    if tables.track:
        what = "needs the pixels, which the node keeps; put it into the node's own file"
        found.append((("track", 0), what))
    if tables.blanker is not None:
        what = "is read from the pixels, which the node keeps; leave it out"
        found.append((("blanker",), what))
    return found
