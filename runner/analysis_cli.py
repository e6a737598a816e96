"""The verbs that find out what a session shows: ``track`` and ``correlate``."""

from pathlib import Path

import click

from runner.completion_cli import completing, trackers
from runner.verb import IN_FILE, conclude, exit_codes, json_option


@click.command()
@click.argument("session", type=IN_FILE)
@click.option(
    "--tracker",
    required=True,
    shell_complete=completing(trackers),
    help="Such as drift, front or growth.",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="What the tracker is told, such as target=right; may be repeated.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes of this computer that look at frames.",
)
@click.option(
    "--cluster", metavar="ADDRESS", help="A Dask scheduler instead, such as tcp://lab:8786."
)
@json_option
def track(
    session: Path,
    tracker: str,
    options: tuple[str, ...],
    workers: int,
    cluster: str | None,
    *,
    as_json: bool,
) -> None:
    """Run a tracker over the stored frames of a SESSION.

    Example: lamella track ti.h5 --tracker drift --workers 4
    """
    with exit_codes():
        from runner.session_tracks import render_track, track_session  # noqa: PLC0415
        from runner.team import open_team  # noqa: PLC0415
        from runner.track_options import read_pairs  # noqa: PLC0415

        told = read_pairs(tracker, options)
        with open_team(workers, cluster) as team:
            summary = track_session(session, tracker, options=told, team=team)
        conclude(summary, render_track, as_json=as_json)


@click.command()
@click.argument("session", type=IN_FILE)
@click.option("--post", type=IN_FILE, help="Calibration of the empty holder after the run.")
@json_option
def correlate(session: Path, post: Path | None, *, as_json: bool) -> None:
    """Charge ledger, kinematics against current, lags and significance.

    With --post, what changed between both calibrations of the holder becomes uncertainty.

    Example: lamella correlate first_charge.h5
    """
    with exit_codes():
        from runner.analysis import correlate_session  # noqa: PLC0415
        from runner.holder_record import HolderRecord  # noqa: PLC0415
        from runner.session_holder import put_holder_after  # noqa: PLC0415
        from runner.summary import summarise  # noqa: PLC0415
        from runner.summary_text import render_summary  # noqa: PLC0415

        if post is not None:
            for alarm in put_holder_after(session, HolderRecord.read(post)):
                click.echo(f"warning: {alarm}", err=True)
        correlate_session(session)
        conclude(summarise(session), render_summary, as_json=as_json)
