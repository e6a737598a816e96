"""Completion, asked for as the scripts of the shells ask: by environment variables."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import get_completion_class
from click.testing import CliRunner

from correlate.registry import tracker_names
from mocks.instruments import simulated_models
from mocks.scenario import names as scenario_names
from runner.cli import main
from runner.completion_cli import SHELLS, VARIABLE
from runner.newfile import template_names

ROOT = Path(__file__).parents[2]
HEAVY = ("scipy", "pandas", "h5py", "pyvisa", "pydantic", "starlette", "uvicorn")
STARTED = "from runner.cli import main; main(prog_name='lamella')"


def asked(line, shell="bash"):
    """Return the variables that a shell's script sets for what was typed, the cursor at its end."""
    words = line.split(" ")
    begun = words[-1] if shell == "fish" else str(len(words) - 1)
    return {VARIABLE: f"{shell}_complete", "COMP_WORDS": line, "COMP_CWORD": begun}


def completed(line, shell="bash"):
    result = CliRunner().invoke(main, [], prog_name="lamella", env=asked(line, shell))
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout.splitlines()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lamella ver", ["verify"]),
        ("lamella mock ca", ["camera"]),
        ("lamella new ", list(template_names())),
        ("lamella track s.h5 --tracker ", list(tracker_names())),
        ("lamella track s.h5 --tracker gr", ["growth"]),
        ("lamella export s.h5 --to h", ["hspy", "hyperspy"]),
        ("lamella mock potentiostat --model ", [*simulated_models(), *simulated_models().values()]),
        ("lamella mock potentiostat --model 26", ["2636B"]),
        ("lamella mock camera --model ", ["stream", "merlin", "dectris"]),
        ("lamella mock camera --scenario ", list(scenario_names())),
        ("lamella mock potentiostat --scenario lco_lip", ["lco_lipon_li"]),
        ("lamella report s.h5 --over", ["--overwrite"]),
        ("lamella completion ", list(SHELLS)),
        ("lamella track s.h5 --tracker nothing", []),
    ],
)
def test_names_are_completed(line, expected):
    told = [f"plain,{name}" for name in expected] or [""]
    assert completed(line) == told


def test_files_are_left_to_the_shell():
    assert completed("lamella check ") == ["file,"]
    assert completed("lamella track ") == ["file,"]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_gets_names_and_a_script(shell):
    assert get_completion_class(shell) is not None
    assert any("front" in line for line in completed("lamella track s.h5 --tracker fro", shell))
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0
    assert f"{shell}_complete" in result.stdout
    assert VARIABLE in result.stdout
    by_variable = {VARIABLE: f"{shell}_source"}
    same = CliRunner().invoke(main, [], prog_name="lamella", env=by_variable)
    assert same.stdout.strip() == result.stdout.strip()


def test_an_old_click_without_a_shell_is_told(monkeypatch):
    monkeypatch.setattr("runner.completion_cli.get_completion_class", lambda _name: None)
    result = CliRunner().invoke(main, ["completion", "powershell"])
    assert result.exit_code == 2
    assert "install a newer click" in result.stderr


def test_little_is_imported_to_complete_a_name():
    code = "import atexit, json, sys; atexit.register(lambda: print(json.dumps("
    code += f"[m for m in {HEAVY} if m in sys.modules]), file=sys.stderr)); {STARTED}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | asked("lamella track s.h5 --tracker fr"),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.split() == ["plain,front"]
    assert json.loads(done.stderr.splitlines()[-1]) == []


@pytest.mark.skipif(
    sys.platform == "win32" or shutil.which("bash") is None, reason="no bash of this system here"
)
def test_bash_completes_by_the_script(tmp_path):
    program = tmp_path / "lamella"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{STARTED}" "$@"\n', "utf-8")
    program.chmod(0o755)
    script = CliRunner().invoke(main, ["completion", "bash"]).stdout
    (tmp_path / "script").write_text(script, "utf-8")
    typed = f"""
        . "{tmp_path}/script"
        complete -p lamella
        COMP_WORDS=(lamella track s.h5 --tracker fr) COMP_CWORD=4
        _lamella_completion lamella
        echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", typed],
        env=os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.splitlines() == [
        "complete -o nosort -F _lamella_completion lamella",
        "front",
    ]
