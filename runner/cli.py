"""The command line: one verb, one function; everything else lives elsewhere."""

import asyncio
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from runner.align_cli import align
from runner.completion_cli import (
    completing,
    completion,
    scenarios,
    simulated_models,
    templates,
    trackers,
)
from runner.node_cli import node
from runner.plain import plain
from runner.plan import ExitCode
from runner.recover_cli import recover

SCREEN = Console(stderr=True)
PAGE = Console()


class Speed(click.ParamType[float]):
    """A factor, or ``max``."""

    name = "speed"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the factor; ``max`` is infinite."""
        if isinstance(value, float):
            return value
        if str(value).lower() == "max":
            return math.inf
        try:
            factor = float(value)
        except ValueError:
            factor = math.nan
        if not (0 < factor < math.inf):
            self.fail(f"{value!r} is no speed; write 1, 10 or max", param, ctx)
        return factor


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Turn an error into its exit code and a message without a traceback."""
    try:
        yield
    except Exception as error:
        from runner.errors import exit_code_of, message_of  # noqa: PLC0415

        code = exit_code_of(error)
        if code is None:
            raise
        click.echo(message_of(error), err=True)
        sys.exit(code)


def _conclude(result: Any, render: Callable[[Any], Any], *, as_json: bool) -> None:
    """Print a result for a person, or as the last line for a program."""
    if as_json:
        click.echo(json.dumps(plain(result)))
    else:
        PAGE.print(render(result))


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object as the last line."
)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace output files that exist."
)


key_option = click.option(
    "--key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with at least 16 secret bytes, for a keyed signature.",
)
scenario_option = click.option(
    "--scenario",
    default="lco_lipon_li",
    show_default=True,
    shell_complete=completing(scenarios),
    help="Which specimen.",
)
continue_option = click.option(
    "--continue",
    "continues",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Session of a run that died, to go on with.",
)


def _path(text: str) -> click.Path:
    return click.Path(path_type=Path, exists=text == "in", dir_okay=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lamella")
def main() -> None:
    """Run, time and explain an experiment on a solid-state lamella in a TEM."""


main.add_command(node)
main.add_command(align)
main.add_command(recover)
main.add_command(completion)


@main.command()
@click.argument("experiment", type=_path("in"))
@click.option("-o", "--output", type=_path("out"), required=True, help="Session file.")
@click.option("--report", type=_path("out"), help="Also write a report page.")
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
    with _exit_codes():
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
        _conclude(summary, render_summary, as_json=as_json)
        sys.exit(summary.exit_code)


def run_async(work: Callable[[], Any]) -> Any:
    """Run a coroutine on a loop that every library here can use.

    aiomqtt needs the selector loop, which is not the default on Windows.
    """
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as loop:
        return loop.run(work())


@main.command()
@click.argument("experiment", type=_path("in"))
@continue_option
@json_option
def check(experiment: Path, continues: Path | None, *, as_json: bool) -> None:
    """Validate an EXPERIMENT without touching hardware.

    With --continue, show what a run would go on with.

    Example: lamella check examples/lco_lipon_li.toml
    """
    with _exit_codes():
        from runner.check import check as check_experiment  # noqa: PLC0415
        from runner.check import render_check  # noqa: PLC0415
        from runner.experiment import Experiment  # noqa: PLC0415

        loaded = Experiment.load(experiment)
        findings = check_experiment(loaded)
        if continues is None or findings.refused:
            _conclude(findings, render_check, as_json=as_json)
            sys.exit(ExitCode.REFUSED if findings.refused else ExitCode.DONE)
        from runner.continuing import load_continuation, preview, render_preview  # noqa: PLC0415

        seen = preview(load_continuation(loaded, continues), loaded)
        _conclude(seen, render_preview, as_json=as_json)


@main.command()
@click.argument("name", required=False, shell_complete=completing(templates))
@click.option("--list", "listing", is_flag=True, help="Name the templates.")
@click.option("-o", "--output", type=_path("out"), help="File to write.")
@overwrite_option
def new(name: str | None, output: Path | None, *, listing: bool, overwrite: bool) -> None:
    """Write a commented experiment file from the template NAME.

    Example: lamella new lco_lipon_li -o mine.toml
    """
    with _exit_codes():
        from runner.newfile import template_names, write_template  # noqa: PLC0415

        if listing:
            click.echo("\n".join(template_names()))
            return
        chosen = name or template_names()[0]
        target = output or Path(f"{chosen}.toml")
        write_template(chosen, target, overwrite=overwrite)
        click.echo(f"wrote {target}; next: lamella check {target}")


@main.command()
@click.argument("experiment", type=_path("in"))
@click.option("-o", "--output", type=_path("out"), required=True)
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
    with _exit_codes():
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
        _conclude(found, render_calibration, as_json=as_json)


@main.command()
@click.argument("experiment", type=_path("in"))
@click.option("--speed", type=Speed(), default="1", help="N or max; simulated only.")
@json_option
def contact(experiment: Path, speed: float, *, as_json: bool) -> None:
    """Tell whether the holder has a cell, an open contact or a short.

    Exit code 1 where it is no cell. A table [contact] makes a run ask this first.

    Example: lamella contact examples/lco_lipon_li.toml
    """
    with _exit_codes():
        from runner.conduct import contact as find  # noqa: PLC0415
        from runner.contact import render_contact  # noqa: PLC0415
        from runner.experiment import Experiment  # noqa: PLC0415

        loaded = Experiment.load(experiment)
        found = run_async(lambda: find(loaded, speed=speed))
        _conclude(found.verdict if as_json else found, render_contact, as_json=as_json)
        sys.exit(ExitCode.DONE if found.is_cell else ExitCode.LIMIT)


@main.command(name="import")
@click.option("-o", "--output", type=_path("out"), required=True)
@click.option("--echem", type=_path("in"), help="File of a potentiostat.")
@click.option(
    "--frames",
    type=_path("in"),
    multiple=True,
    help="Frame file; repeat it, or let the further arguments be frame files too.",
)
@click.argument("more_frames", type=_path("in"), nargs=-1)
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
    with _exit_codes():
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
        _conclude(summary, render_import, as_json=as_json)


@main.command(name="dry-run")
@click.argument("experiment", type=_path("in"))
@click.option("--session", required=True, type=_path("in"), help="A recorded session.")
@click.option("--latency", default="100 ms", help="From an exposure to the set-point.")
@json_option
def dry_run(experiment: Path, session: Path, latency: str, *, as_json: bool) -> None:
    """Try the rules on images of an EXPERIMENT on a recorded session.

    Example: lamella dry-run whisker.toml --session yesterday.h5
    """
    with _exit_codes():
        from runner import dry_run as trying  # noqa: PLC0415
        from runner.experiment import Experiment  # noqa: PLC0415
        from runner.quantities import parse  # noqa: PLC0415

        plan = Experiment.load(experiment)
        found = trying.dry_run(plan, session, latency_s=parse(latency, "time"))
        _conclude(found, trying.render_dry_run, as_json=as_json)


@main.command()
@click.argument("session", type=_path("in"))
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
    with _exit_codes():
        from runner.analysis import render_track, track_session  # noqa: PLC0415
        from runner.team import open_team  # noqa: PLC0415
        from runner.track_options import read_pairs  # noqa: PLC0415

        told = read_pairs(tracker, options)
        with open_team(workers, cluster) as team:
            summary = track_session(session, tracker, options=told, team=team)
        _conclude(summary, render_track, as_json=as_json)


@main.command()
@click.argument("session", type=_path("in"))
@click.option("--post", type=_path("in"), help="Calibration of the empty holder after the run.")
@json_option
def correlate(session: Path, post: Path | None, *, as_json: bool) -> None:
    """Charge ledger, kinematics against current, lags and significance.

    With --post, what changed between both calibrations of the holder becomes uncertainty.

    Example: lamella correlate first_charge.h5
    """
    with _exit_codes():
        from runner.analysis import correlate_session  # noqa: PLC0415
        from runner.holder_record import HolderRecord  # noqa: PLC0415
        from runner.session_holder import put_holder_after  # noqa: PLC0415
        from runner.summary import summarise  # noqa: PLC0415
        from runner.summary_text import render_summary  # noqa: PLC0415

        if post is not None:
            for alarm in put_holder_after(session, HolderRecord.read(post)):
                click.echo(f"warning: {alarm}", err=True)
        correlate_session(session)
        _conclude(summarise(session), render_summary, as_json=as_json)


@main.command()
@click.argument("session", type=_path("in"))
@click.option("-o", "--output", type=_path("out"), required=True)
@overwrite_option
@json_option
def report(session: Path, output: Path, *, overwrite: bool, as_json: bool) -> None:
    """Write one self-contained page about a SESSION.

    Example: lamella report first_charge.h5 -o first_charge.html
    """
    with _exit_codes():
        from runner.report import write_report  # noqa: PLC0415

        written = write_report(session, output, overwrite=overwrite)
        _conclude(written, lambda _: f"wrote {output}", as_json=as_json)


@main.command()
@click.argument("session", type=_path("in"))
@click.option("-o", "--output", type=_path("out"), required=True, help="An .mp4 or a .gif.")
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
    with _exit_codes():
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
        _conclude(written, lambda _: f"wrote {output}: {told}", as_json=as_json)


@main.command()
@click.argument("session", type=_path("in"))
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
    with _exit_codes():
        from runner.export import Wanted, export_session, render_export  # noqa: PLC0415

        written = export_session(
            session,
            output,
            "hspy" if to == "hyperspy" else to,
            wanted=Wanted(table=table, camera=camera, frames=frames),
            overwrite=overwrite,
        )
        _conclude(written, render_export, as_json=as_json)


@main.command()
@click.argument("session", type=_path("in"))
@key_option
@json_option
def verify(session: Path, key: Path | None, *, as_json: bool) -> None:
    """Check a SESSION against its schema, its checksums, its own stamps and its signature.

    Example: lamella verify first_charge.h5
    """
    with _exit_codes():
        from session.manifest import check_signature  # noqa: PLC0415
        from session.validate import validate  # noqa: PLC0415

        secret = None if key is None else key.read_bytes()
        problems = [*validate(session), *check_signature(session, key=secret)]
        _conclude(
            problems,
            lambda found: "\n".join(str(p) for p in found) or "no problem found",
            as_json=as_json,
        )
        sys.exit(ExitCode.LIMIT if problems else ExitCode.DONE)


@main.command()
@click.argument("session", type=_path("in"))
@click.argument("text")
@click.option("--at", help="Time since the session began that it is about, such as 95 s.")
@json_option
def note(session: Path, text: str, at: str | None, *, as_json: bool) -> None:
    """Keep a note of the operator's in a SESSION that was recorded.

    Example: lamella note first_charge.h5 "the beam was moved" --at "95 s"
    """
    with _exit_codes():
        from runner.notes import add_note  # noqa: PLC0415
        from runner.quantities import parse  # noqa: PLC0415

        t_ns = add_note(session, text, at_s=None if at is None else parse(at, "time"))
        _conclude({"t_ns": t_ns}, lambda _: f"noted in {session}", as_json=as_json)


@main.command()
@click.argument("session", type=_path("in"))
@key_option
@overwrite_option
@json_option
def sign(session: Path, key: Path | None, *, overwrite: bool, as_json: bool) -> None:
    """Write the hash of a finished SESSION beside it, as sha256sum -c reads it.

    Sign last: what an analysis writes into the session changes it. With --key a second
    file can only be made by who has the key.

    Example: lamella sign first_charge.h5
    """
    with _exit_codes():
        from session.manifest import sign as sign_session  # noqa: PLC0415

        secret = None if key is None else key.read_bytes()
        signed = sign_session(session, key=secret, overwrite=overwrite)
        _conclude(signed, lambda what: f"{what.sha256}  {what.session.name}", as_json=as_json)


@main.group()
def mock() -> None:
    """Serve simulated instruments on loopback, for trying any program against them."""


@mock.command(name="potentiostat")
@click.option(
    "--model",
    default="6430",
    show_default=True,
    shell_complete=completing(simulated_models),
    help="Such as 2636B or keithley2600.",
)
@click.option("--port", default=5025, show_default=True, type=click.IntRange(0, 65535))
@scenario_option
@click.option("--seed", default=1, show_default=True)
def mock_potentiostat(model: str, port: int, scenario: str, seed: int) -> None:
    """Serve a simulated potentiostat with a cell at its terminals.

    Example: lamella mock potentiostat --model 6430 --port 5025
    """
    _serve(model, scenario, seed, potentiostat_port=port, camera_port=None)


@mock.command(name="camera")
@click.option(
    "--model",
    type=click.Choice(["stream", "merlin", "dectris"]),
    default="stream",
    show_default=True,
    help="Whose protocol it speaks.",
)
@click.option("--port", default=5030, show_default=True, type=click.IntRange(0, 65535))
@click.option(
    "--data-port",
    default=5031,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="For the frames of a merlin or dectris, whose --port takes commands.",
)
@scenario_option
@click.option("--seed", default=1, show_default=True)
def mock_camera(model: str, port: int, data_port: int, scenario: str, seed: int) -> None:
    """Serve a simulated camera that films a lamella.

    Example: lamella mock camera --model merlin --port 6341 --data-port 6342
    """
    if model == "stream":
        _serve("6430", scenario, seed, potentiostat_port=None, camera_port=port)
        return
    with _exit_codes():
        from runner.serving import serve_camera  # noqa: PLC0415

        run_async(
            lambda: serve_camera(
                model,
                scenario=scenario,
                seed=seed,
                ports=(port, data_port),
                say=lambda text: click.echo(text, err=True),
            )
        )


def _serve(
    model: str, scenario: str, seed: int, *, potentiostat_port: int | None, camera_port: int | None
) -> None:
    with _exit_codes():
        from runner.serving import serve_mock  # noqa: PLC0415

        run_async(
            lambda: serve_mock(
                model,
                scenario=scenario,
                seed=seed,
                potentiostat_port=potentiostat_port,
                camera_port=camera_port,
                say=lambda text: click.echo(text, err=True),
            )
        )


@main.command()
@json_option
def instruments(*, as_json: bool) -> None:
    """List the supported models, their ranges and their off-state hazards.

    Example: lamella instruments
    """
    with _exit_codes():
        from runner.instruments import known_instruments, render_known  # noqa: PLC0415

        _conclude(known_instruments(), render_known, as_json=as_json)


if __name__ == "__main__":
    main()
