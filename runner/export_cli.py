"""The verbs that show a session to others: ``report``, ``movie`` and ``export``."""

from pathlib import Path

import click

from runner.verb import (
    IN_FILE,
    OUT_FILE,
    SCREEN,
    conclude,
    exit_codes,
    json_option,
    overwrite_option,
)


@click.command()
@click.argument("session", type=IN_FILE)
@click.option("-o", "--output", type=OUT_FILE, required=True)
@overwrite_option
@json_option
def report(session: Path, output: Path, *, overwrite: bool, as_json: bool) -> None:
    """Write one self-contained page about a SESSION.

    Example: lamella report first_charge.h5 -o first_charge.html
    """
    with exit_codes():
        from runner.report import write_report  # noqa: PLC0415

        written = write_report(session, output, overwrite=overwrite)
        conclude(written, lambda _: f"wrote {output}", as_json=as_json)


@click.command()
@click.argument("session", type=IN_FILE)
@click.option("-o", "--output", type=OUT_FILE, required=True, help="An .mp4 or a .gif.")
@click.option(
    "--fps",
    type=click.FloatRange(1, 120),
    default=25.0,
    show_default=True,
    help="Pictures in a second of the movie.",
)
@click.option(
    "--every", type=click.IntRange(1), default=1, help="Show one of so many frames of the camera."
)
@overwrite_option
@json_option
def movie(  # one argument for each option
    session: Path, output: Path, fps: float, every: int, *, overwrite: bool, as_json: bool
) -> None:
    """Write a movie of a SESSION: frames with what was seen in them, beside the traces.

    Example: lamella movie first_charge.h5 -o first_charge.mp4
    """
    with exit_codes():
        from runner.movie import write_movie  # noqa: PLC0415
        from runner.terminal import counting  # noqa: PLC0415

        with counting(SCREEN, "drawing") as progress:
            written = write_movie(
                session,
                output,
                frame_rate_Hz=fps,
                every=every,
                overwrite=overwrite,
                progress=progress,
            )
        told = f"{written.frames} frames, {written.times_real:.3g} times as fast as they came"
        conclude(written, lambda _: f"wrote {output}: {told}", as_json=as_json)


@click.command()
@click.argument("session", type=IN_FILE)
@click.option(
    "--to",
    required=True,
    type=click.Choice(["csv", "parquet", "bdf", "nexus", "hspy", "hyperspy"]),
    help="hyperspy is hspy.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="A folder for all tables, or a file.",
)
@click.option("--table", help="One table alone, such as samples or tracks/front.")
@click.option("--camera", help="Whose frames go into an hspy file, where there are several.")
@click.option("--frames", is_flag=True, help="Copy the pixels into a nexus file too.")
@overwrite_option
@json_option
def export(
    session: Path,
    to: str,
    output: Path,
    table: str | None,
    camera: str | None,
    *,
    frames: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write a SESSION, or a part of it, in a format that other programs read.

    Example: lamella export first_charge.h5 --to csv -o first_charge
    """
    with exit_codes():
        from runner.export import Wanted, export_session, render_export  # noqa: PLC0415

        written = export_session(
            session,
            output,
            "hspy" if to == "hyperspy" else to,
            wanted=Wanted(table=table, camera=camera, frames=frames),
            overwrite=overwrite,
        )
        conclude(written, render_export, as_json=as_json)
