"""The verbs of a node: ``lamella node camera CONFIG``."""

import sys
from pathlib import Path

import click

from runner.plan import ExitCode
from runner.verb import IN_FILE, conclude, exit_codes, json_option, run_async


@click.group()
def node() -> None:
    """Serve equipment of this computer to a run on another."""


@node.command(name="camera")
@click.argument("config", type=IN_FILE)
@json_option
def node_camera(config: Path, *, as_json: bool) -> None:
    """Serve the camera that CONFIG names, until Ctrl-C.

    Its frames are streamed on, or kept on this computer while headers, clock exchanges
    and tracks go over MQTT.

    Example: lamella node camera merlin.toml
    """
    with exit_codes():
        from runner.bus_address import BusError  # noqa: PLC0415
        from runner.config_node import NodeSettings  # noqa: PLC0415
        from runner.node import run_node  # noqa: PLC0415
        from runner.node_spool import SpoolError  # noqa: PLC0415

        settings = NodeSettings.load(config)
        try:
            summary = run_async(
                lambda: run_node(settings, say=lambda text: click.echo(text, err=True))
            )
        except (BusError, SpoolError) as error:
            click.echo(str(error), err=True)
            sys.exit(ExitCode.REFUSED)
        conclude(summary, lambda done: f"{done.name}: {done.frames} frames", as_json=as_json)
