"""The verb ``lamella import``: a session from files that other programs wrote."""

from pathlib import Path

import click

from runner.verb import IN_FILE, OUT_FILE, conclude, exit_codes, json_option, overwrite_option


@click.command(name="import")
@click.option("-o", "--output", type=OUT_FILE, required=True)
@click.option("--echem", type=IN_FILE, help="File of a potentiostat.")
@click.option(
    "--frames",
    type=IN_FILE,
    multiple=True,
    help="Frame file; repeat it, or let the further arguments be frame files too.",
)
@click.argument("more_frames", type=IN_FILE, nargs=-1)
@click.option(
    "--edges",
    multiple=True,
    help="CSV of trigger edges: potentiostat=FILE or camera=FILE, whose clock it is on; repeat it.",
)
@click.option(
    "--edge-columns", default="", help='Columns of those, such as "time_s=Time,polarity=Level".'
)
@click.option(
    "--frame-interval", help="Time between frames where the files hold no times, such as 1 s."
)
@click.option("--pixel-size", help="Edge of a pixel, such as 0.2554 nm.")
@click.option("--columns", help='Columns of a CSV, such as "time=t [s],current=I [nA]".')
@click.option(
    "--sign",
    type=click.Choice(["charging", "discharging"]),
    help="What a positive current of the potentiostat's file does to the cell.",
)
@click.option("--time-zone", help="Of local times in that file: UTC, +02:00 or Europe/Berlin.")
@click.option("--title", help="Title of the session.")
@overwrite_option
@json_option
def import_files(  # noqa: PLR0913, PLR0917 - one argument for each option
    output: Path,
    echem: Path | None,
    frames: tuple[Path, ...],
    more_frames: tuple[Path, ...],
    edges: tuple[str, ...],
    edge_columns: str,
    frame_interval: str | None,
    pixel_size: str | None,
    columns: str | None,
    sign: str | None,
    time_zone: str | None,
    title: str | None,
    *,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Make a session from files that other programs wrote.

    What was taken for granted is printed and stored, each with the option that would tell it.

    Example: lamella import -o ti.h5 --frame-interval "1 s" --frames 1733.png 1734.png
    """
    with exit_codes():
        from runner.edge_files import named_edges, parse_columns  # noqa: PLC0415
        from runner.import_told import Told, parse_column_map, parse_zone  # noqa: PLC0415
        from runner.importing import import_session, render_import  # noqa: PLC0415
        from runner.quantities import parse  # noqa: PLC0415

        summary = import_session(
            output,
            echem=echem,
            frames=[*frames, *more_frames],
            edges=[named_edges(text, parse_columns(edge_columns)) for text in edges],
            frame_interval_s=None if frame_interval is None else parse(frame_interval, "time"),
            pixel_size_m=None if pixel_size is None else parse(pixel_size, "length"),
            title=title,
            told=Told(
                columns=None if columns is None else parse_column_map(columns),
                sign={None: 0, "charging": 1, "discharging": -1}[sign],
                zone=None if time_zone is None else parse_zone(time_zone),
            ),
            overwrite=overwrite,
        )
        conclude(summary, render_import, as_json=as_json)
