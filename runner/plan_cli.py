"""The verbs of an experiment file, before it is run: ``new``, ``check`` and ``dry-run``."""

import sys
from pathlib import Path

import click

from runner.completion_cli import completing, templates
from runner.plan import ExitCode
from runner.verb import (
    IN_FILE,
    OUT_FILE,
    conclude,
    continue_option,
    exit_codes,
    json_option,
    overwrite_option,
)


@click.command()
@click.argument("name", required=False, shell_complete=completing(templates))
@click.option("--list", "listing", is_flag=True, help="Name the templates.")
@click.option("-o", "--output", type=OUT_FILE, help="File to write.")
@overwrite_option
def new(name: str | None, output: Path | None, *, listing: bool, overwrite: bool) -> None:
    """Write a commented experiment file from the template NAME.

    Example: lamella new lco_lipon_li -o mine.toml
    """
    with exit_codes():
        from runner.newfile import template_names, write_template  # noqa: PLC0415

        if listing:
            click.echo("\n".join(template_names()))
            return
        chosen = name or template_names()[0]
        target = output or Path(f"{chosen}.toml")
        write_template(chosen, target, overwrite=overwrite)
        click.echo(f"wrote {target}; next: lamella check {target}")


@click.command()
@click.argument("experiment", type=IN_FILE)
@continue_option
@json_option
def check(experiment: Path, continues: Path | None, *, as_json: bool) -> None:
    """Validate an EXPERIMENT without touching hardware.

    With --continue, show what a run would go on with.

    Example: lamella check examples/lco_lipon_li.toml
    """
    with exit_codes():
        from runner.check import check as check_experiment  # noqa: PLC0415
        from runner.check import render_check  # noqa: PLC0415
        from runner.experiment import Experiment  # noqa: PLC0415

        loaded = Experiment.load(experiment)
        findings = check_experiment(loaded)
        if continues is None or findings.refused:
            conclude(findings, render_check, as_json=as_json)
            sys.exit(ExitCode.REFUSED if findings.refused else ExitCode.DONE)
        from runner.continuing import load_continuation, preview, render_preview  # noqa: PLC0415

        seen = preview(load_continuation(loaded, continues), loaded)
        conclude(seen, render_preview, as_json=as_json)


@click.command(name="dry-run")
@click.argument("experiment", type=IN_FILE)
@click.option("--session", required=True, type=IN_FILE, help="A recorded session.")
@click.option("--latency", default="100 ms", help="From an exposure to the set-point.")
@json_option
def dry_run(experiment: Path, session: Path, latency: str, *, as_json: bool) -> None:
    """Try the rules on images of an EXPERIMENT on a recorded session.

    Example: lamella dry-run whisker.toml --session yesterday.h5
    """
    with exit_codes():
        from runner import dry_run as trying  # noqa: PLC0415
        from runner.experiment import Experiment  # noqa: PLC0415
        from runner.quantities import parse  # noqa: PLC0415

        plan = Experiment.load(experiment)
        found = trying.dry_run(plan, session, latency_s=parse(latency, "time"))
        conclude(found, trying.render_dry_run, as_json=as_json)
