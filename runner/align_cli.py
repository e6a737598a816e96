"""The verb ``lamella align SESSION``: a movie and a potentiostat that share no clock."""

import sys
from pathlib import Path
from typing import Any

import click

from runner.plan import ExitCode
from runner.verb import IN_FILE, conclude, exit_codes, json_option


@click.command()
@click.argument("session", type=IN_FILE)
@click.option(
    "--by",
    type=click.Choice(["auto", "code", "steps", "rates"]),
    default="auto",
    show_default=True,
    help="Method; auto tries code, steps and rates in turn.",
)
@click.option("--track", help="Whose position goes with the current, such as front.")
@click.option("--camera", help="Whose frames; the first one's without it.")
@click.option("--max-offset", help='Largest offset to look at, such as "10 min".')
@click.option("--chip", help='Length of a chip of the blanking code, such as "20.7 ms".')
@click.option(
    "--order",
    type=click.IntRange(5, 10),
    default=7,
    show_default=True,
    help="Of the code that --chip names: it has 2^ORDER - 1 chips.",
)
@click.option(
    "--repeats", type=click.IntRange(1), default=1, show_default=True, help="Of that code."
)
@click.option("--dry-run", is_flag=True, help="Only tell what is found.")
@click.option("--force", is_flag=True, help="Move frames whose clock was compared in the run, too.")
@click.option("--undo", is_flag=True, help="Give the frames the times back that they had.")
@json_option
def align(  # noqa: PLR0913 - one argument for each option
    session: Path,
    by: Any,
    track: str | None,
    camera: str | None,
    max_offset: str | None,
    chip: str | None,
    order: int,
    repeats: int,
    *,
    dry_run: bool,
    force: bool,
    undo: bool,
    as_json: bool,
) -> None:
    """Find the offset between the movie and the potentiostat of a SESSION, and remove it.

    Exit code 1 where none is sure: then nothing is changed. Raw stamps are always kept.

    Example: lamella align ti.h5 --max-offset "10 min"
    """
    with exit_codes():
        from runner.align_summary import render_align  # noqa: PLC0415
        from runner.aligning import align_session, undo_alignment  # noqa: PLC0415
        from runner.quantities import parse_positive  # noqa: PLC0415
        from sync.code import BlankingCode  # noqa: PLC0415

        if undo:
            undone = {"session": session, "camera": undo_alignment(session, camera)}
            conclude(undone, lambda done: f"{done['camera']} is as before", as_json=as_json)
            return
        code = None
        if chip is not None:
            chip_ns = round(parse_positive(chip, "time") * 1e9)
            code = BlankingCode(order=order, chip_ns=chip_ns, repeats=repeats)
        summary = align_session(
            session,
            by=by,
            track=track,
            camera=camera,
            max_offset_s=None if max_offset is None else parse_positive(max_offset, "time"),
            code=code,
            apply=not dry_run,
            force=force,
        )
        conclude(summary, render_align, as_json=as_json)
        sys.exit(ExitCode.LIMIT if summary.refusal else ExitCode.DONE)
