"""The command line ``lamella``: its verbs, each from the module of its family."""

import click

from runner.align_cli import align
from runner.analysis_cli import correlate, track
from runner.archive_cli import note, sign, verify
from runner.completion_cli import completion
from runner.export_cli import export, movie, report
from runner.holder_cli import calibrate, contact
from runner.import_cli import import_files
from runner.instruments_cli import instruments, mock
from runner.node_cli import node
from runner.plan_cli import check, dry_run, new
from runner.recover_cli import recover
from runner.run_cli import run

VERBS: tuple[click.Command, ...] = (
    *(new, check, dry_run),
    *(calibrate, contact, run, node),
    *(import_files, align, track, correlate),
    *(report, movie, export),
    *(verify, recover, note, sign),
    *(instruments, mock, completion),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lamella")
def main() -> None:
    """Run, time and explain an experiment on a solid-state lamella in a TEM."""


for verb in VERBS:
    main.add_command(verb)


if __name__ == "__main__":
    main()
