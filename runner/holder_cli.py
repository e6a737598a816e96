"""The verbs that ask what is in the holder: ``calibrate`` and ``contact``."""

import sys
from pathlib import Path
from typing import Any

import click

from runner.plan import ExitCode
from runner.verb import (
    IN_FILE,
    OUT_FILE,
    Speed,
    conclude,
    exit_codes,
    json_option,
    overwrite_option,
    run_async,
)


@click.command()
@click.argument("experiment", type=IN_FILE)
@click.option("-o", "--output", type=OUT_FILE, required=True)
@click.option("--speed", type=Speed(), default="1", help="N or max; simulated only.")
@click.option(
    "--ranges",
    "which",
    type=click.Choice(["used", "all"]),
    default="used",
    show_default=True,
    help="Current ranges whose zero and noise are measured.",
)
@click.option("--valid-for", default="12 h", show_default=True, help="Time to believe it.")
@overwrite_option
@json_option
def calibrate(
    experiment: Path,
    output: Path,
    speed: float,
    which: Any,
    valid_for: str,
    *,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Measure the open holder: leakage, stray capacitance, absorption, noise.

    No cell may be in the holder: voltages are applied.

    Example: lamella calibrate examples/lco_lipon_li.toml -o holder.h5
    """
    with exit_codes():
        from runner.calibrate import calibrate as calibrate_to  # noqa: PLC0415
        from runner.calibrate import render_calibration  # noqa: PLC0415
        from runner.experiment import Experiment  # noqa: PLC0415
        from runner.quantities import parse_positive  # noqa: PLC0415

        loaded = Experiment.load(experiment)
        valid_for_s = parse_positive(valid_for, "time")
        found = run_async(
            lambda: calibrate_to(
                loaded,
                output,
                speed=speed,
                overwrite=overwrite,
                which=which,
                valid_for_s=valid_for_s,
            )
        )
        conclude(found, render_calibration, as_json=as_json)


@click.command()
@click.argument("experiment", type=IN_FILE)
@click.option("--speed", type=Speed(), default="1", help="N or max; simulated only.")
@json_option
def contact(experiment: Path, speed: float, *, as_json: bool) -> None:
    """Tell whether the holder has a cell, an open contact or a short.

    Exit code 1 where it is no cell. A table [contact] makes a run ask this first.

    Example: lamella contact examples/lco_lipon_li.toml
    """
    with exit_codes():
        from runner.contact import render_contact  # noqa: PLC0415
        from runner.experiment import Experiment  # noqa: PLC0415
        from runner.preparing import contact as find  # noqa: PLC0415

        loaded = Experiment.load(experiment)
        found = run_async(lambda: find(loaded, speed=speed))
        conclude(found.verdict if as_json else found, render_contact, as_json=as_json)
        sys.exit(ExitCode.DONE if found.is_cell else ExitCode.LIMIT)
