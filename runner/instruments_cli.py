"""The verbs of instruments: ``instruments`` that are known, and ``mock`` ones to try."""

import click

from runner.completion_cli import completing, simulated_models
from runner.verb import conclude, exit_codes, json_option, run_async, scenario_option


@click.command()
@json_option
def instruments(*, as_json: bool) -> None:
    """List the supported models, their ranges and their off-state hazards.

    Example: lamella instruments
    """
    with exit_codes():
        from runner.instruments import known_instruments, render_known  # noqa: PLC0415

        conclude(known_instruments(), render_known, as_json=as_json)


@click.group()
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
    with exit_codes():
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
    with exit_codes():
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
