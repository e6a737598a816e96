"""The verb ``lamella run EXPERIMENT``: the experiment itself, in front of a person."""

import math
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import click

from runner.verb import (
    IN_FILE,
    OUT_FILE,
    SCREEN,
    Speed,
    conclude,
    continue_option,
    exit_codes,
    json_option,
    overwrite_option,
    run_async,
)


@click.command()
@click.argument("experiment", type=IN_FILE)
@click.option("-o", "--output", type=OUT_FILE, required=True, help="Session file.")
@click.option("--report", type=OUT_FILE, help="Also write a report page.")
@continue_option
@click.option(
    "--speed",
    type=Speed(),
    default="1",
    help="For simulated hardware: N times real time, or max.",
)
@click.option("--no-view", is_flag=True, help="Serve no live view.")
@click.option(
    "--view-port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port of the live view on loopback; a free one where left out.",
)
@overwrite_option
@json_option
def run(  # noqa: PLR0913 - one argument for each option
    experiment: Path,
    output: Path,
    report: Path | None,
    continues: Path | None,
    speed: float,
    view_port: int,
    *,
    no_view: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Run an EXPERIMENT and record it.

    A live view is served at the printed address. Ctrl-C once stops the step and goes on
    with the plan's ending, twice aborts, three times halts. The cell is left safe each
    time. Where a rule of the plan holds it, Enter goes on; pause, resume, stop, abort,
    halt, next and note TEXT may be typed, too.

    With --continue the steps that a run before it has done are not repeated: see it first
    with lamella check EXPERIMENT --continue OLD.h5.

    Example: lamella run examples/lco_lipon_li.toml -o first_charge.h5
    """
    with exit_codes():
        from runner.audience import NOBODY  # noqa: PLC0415
        from runner.conduct import run as run_experiment  # noqa: PLC0415
        from runner.control import Control  # noqa: PLC0415
        from runner.experiment import Experiment  # noqa: PLC0415
        from runner.summary_text import render_summary  # noqa: PLC0415
        from runner.terminal import Screen  # noqa: PLC0415
        from runner.unattended import Unattended  # noqa: PLC0415
        from runner.view import open_view  # noqa: PLC0415

        loaded = Experiment.load(experiment)
        screen, control = Screen(SCREEN), Control()

        async def work() -> Any:
            control.listen_to_keyboard(screen.stage)
            async with AsyncExitStack() as stack:
                view = None
                if not no_view:
                    opened = open_view(loaded, control, port=view_port, say=screen.stage)
                    view = await stack.enter_async_context(opened)
                stack.enter_context(control.on_ctrl_c())
                watcher = stack.enter_context(screen.watching())
                if math.isinf(speed) and not sys.stdin.isatty():
                    watcher = Unattended(control, watcher)

                announced = False

                def stage(text: str) -> None:
                    nonlocal announced
                    if view is not None:
                        view.stage(text)
                        if not announced:  # not for a plan that is refused
                            click.echo(view.told, err=True)  # beside what else a person follows
                            announced = True
                    screen.stage(text)

                done = await run_experiment(
                    loaded,
                    output=output,
                    report=report,
                    continues=continues,
                    overwrite=overwrite,
                    speed=speed,
                    control=control,
                    watcher=watcher,
                    stage=stage,
                    audience=NOBODY if view is None else view.audience,
                )
                if view is not None:
                    view.end(done.exit_reason)
                return done

        summary = run_async(work)
        conclude(summary, render_summary, as_json=as_json)
        sys.exit(summary.exit_code)
