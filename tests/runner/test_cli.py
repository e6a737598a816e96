"""The command line as its users meet it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from mocks.instruments import driver_names
from runner.cli import main
from runner.errors import exit_code_of, message_of
from runner.plan import ExitCode
from runner.summary import summarise
from runner.summary_text import render_summary
from session import Session

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "lco_lipon_li.toml"
REAL = Path(os.environ.get("LAMELLA_REAL_DATA", ROOT.parent / "shared" / "data"))
pytestmark = pytest.mark.timeout(600)


def lamella(*words, code=0):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return result


def told(*words, code=0):
    return " ".join(lamella(*words, code=code).stdout.replace("│", " ").split())


def last_json(result):
    return json.loads(result.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize(
    "verb",
    [
        *("run", "check", "new", "calibrate", "contact", "import", "track"),
        *("correlate", "report", "verify", "instruments", "align", "completion"),
    ],
)
def test_every_verb_has_help_with_an_example(verb):
    result = lamella(verb, "--help")
    if verb != "new":
        assert "Example: lamella" in " ".join(result.stdout.split())


def test_starting_is_quick_because_little_is_imported():
    code = "import sys, runner.cli; print([m for m in sys.modules if m in"
    code += " ('numpy', 'scipy', 'pandas', 'h5py', 'pyvisa', 'pydantic', 'starlette', 'uvicorn')])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    heavy = json.loads(done.stdout.replace("'", '"'))
    assert set(heavy) <= {"numpy"}


def test_check_prints_the_arithmetic():
    text = lamella("check", EXAMPLE).stdout
    for part in ("10 um2", "12.42 nC", "30 pA = 0.3 mA/cm2", "nm/s", "270 s", "135 e/A2"):
        assert part in text, part
    findings = last_json(lamella("check", EXAMPLE, "--json"))["findings"]
    assert {f["severity"] for f in findings} == {"ok"}


def test_a_bad_experiment_is_exit_2_with_everything_that_is_wrong(tmp_path):
    text = EXAMPLE.read_text("utf-8").replace('"5 um"', '"5,0 um"').replace("seed", "sead")
    (tmp_path / "bad.toml").write_text(text, "utf-8")
    for words in (
        ("check", tmp_path / "bad.toml"),
        ("run", tmp_path / "bad.toml", "-o", tmp_path / "a.h5"),
        ("calibrate", tmp_path / "bad.toml", "-o", tmp_path / "a.h5"),
    ):
        result = lamella(*words, code=2)
        assert "2 problems" in result.stderr
        assert "decimal point" in result.stderr
        assert "did you mean seed" in result.stderr
        assert "Traceback" not in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["bad.toml"]


@pytest.mark.parametrize(
    ("old", "new", "code", "says"),
    [
        ('voltage = ["2.5 V", "4.3 V"]\n', "", 2, "limits.voltage: is missing"),
        ('charge = "8 nC"', "", 2, "limits.charge: is missing"),
        ('current = "100 pA"', "", 2, "limits.current: is missing"),
        (', "t > 120 s"', "", 2, 'needs an end in time, such as "t > 120 s"'),
        ('["V > 4.2 V", ', "[", 2, 'a charge needs an end in voltage, such as "V > 4.2 V"'),
        ('"keithley6430"', '"keithley9000"', 2, "no potentiostat driver is called 'keithley9000'"),
        ('"30 pA"', '"3 fA"', 2, "times are needed"),
        ('resource = "mock"', 'resource = "TCPIP::127.0.0.1::1::SOCKET"', 3, "cannot be opened"),
        ('resource = "mock"', 'resource = "NOWHERE"', 3, "NOWHERE"),
    ],
)
def test_a_plan_that_is_refused_switches_nothing_on_and_leaves_no_file(
    tmp_path, old, new, code, says
):
    text = EXAMPLE.read_text("utf-8")
    assert old in text
    if code == 3:  # without a camera, which would be simulated in real time
        start, stop = text.index("[camera]"), text.index("[mock]")
        text = text[:start] + text[stop:].replace("dose = ", "# dose = ")
    (tmp_path / "plan.toml").write_text(text.replace(old, new), "utf-8")
    result = lamella(
        *("run", tmp_path / "plan.toml", "-o", tmp_path / "a.h5"),
        *("--report", tmp_path / "a.html", *(["--no-view"] if says == "NOWHERE" else [])),
        code=code,
    )
    told = result.stderr
    assert says in " ".join(told.split())
    # There is something to look at once the plan begins, and not before.
    seen = code == 3 and says != "NOWHERE"
    assert ("live view: http://127.0.0.1:" in result.stderr) is seen
    assert "Traceback" not in told
    assert [p.name for p in tmp_path.iterdir()] == ["plan.toml"]


def test_check_refuses_a_current_that_the_source_cannot_be_trusted_with(tmp_path):
    text = EXAMPLE.read_text("utf-8").replace('"30 pA"', '"30 fA"')
    (tmp_path / "weak.toml").write_text(text.replace('"-30 pA"', '"-30 fA"'), "utf-8")
    result = lamella("check", tmp_path / "weak.toml", code=2)
    assert "refuse" in result.stdout
    assert "times are needed" in " ".join(result.stdout.split())


def test_check_warns_where_a_real_holder_was_never_measured(tmp_path):
    text = EXAMPLE.read_text("utf-8").replace('resource = "mock"', 'resource = "GPIB0::24::INSTR"')
    text = text.replace('dose = "500', 'dose = "50').replace("LiCoO2", "Sn")
    (tmp_path / "real.toml").write_text(text, "utf-8")
    found = last_json(lamella("check", tmp_path / "real.toml", "--json"))["findings"]
    warned = [f["what"] for f in found if f["severity"] == "warn"]
    assert len(warned) == 3
    assert any("calibration" in what for what in warned)


def test_an_unknown_driver_gets_a_hint(tmp_path):
    text = EXAMPLE.read_text("utf-8").replace("keithley6430", "keithley6340")
    (tmp_path / "odd.toml").write_text(text, "utf-8")
    result = lamella("check", tmp_path / "odd.toml", code=2)
    assert "did you mean 'keithley6430'" in result.stderr
    assert "line 15" in result.stderr


@pytest.mark.parametrize("speed", ["fast", "0", "-1", "nan", "inf"])
def test_a_speed_is_a_factor_or_max(speed, tmp_path):
    result = lamella("run", EXAMPLE, "-o", tmp_path / "a.h5", "--speed", speed, code=2)
    assert "is no speed" in result.stderr


def test_new_writes_a_file_that_check_accepts(tmp_path):
    assert lamella("new", "--list").stdout.split() == ["simulated"]
    target = tmp_path / "mine.toml"
    assert "next: lamella check" in lamella("new", "simulated", "-o", target).stdout
    lamella("check", target)
    assert "--overwrite" in lamella("new", "-o", target, code=2).stderr
    assert "did you mean simulated" in lamella("new", "simulate", "-o", target, code=2).stderr
    assert "--list" in lamella("new", "zzz", "-o", target, code=2).stderr


def test_the_template_is_the_example():
    template = ROOT / "runner" / "templates" / "simulated.toml"
    assert template.read_bytes() == EXAMPLE.read_bytes()


def test_instruments_tell_what_off_would_do():
    text = lamella("instruments").stdout
    assert "keithley6430" in text
    assert "harms a cell" in text
    told = {row["driver"]: row for row in last_json(lamella("instruments", "--json"))}
    assert told["keithley6430"]["rest_states"] == ["S1"]
    assert told["keithley2400"]["rest_states"] == ["S1", "S2"]


@pytest.mark.parametrize(
    ("model", "question", "answer"),
    [("2636B", b"*IDN?\n", b"Model 2636B"), ("methodscript", b"t\n", b"tes4_hr")],
)
def test_a_simulated_instrument_is_served_to_any_program(model, question, answer):
    command = ["mock", "potentiostat", "--model", model, "--port", "0"]
    with subprocess.Popen(
        [sys.executable, "-m", "runner.cli", *command],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            told = server.stderr.readline()
            port = int(told.split("::")[2])
            with socket.create_connection(("127.0.0.1", port), timeout=10) as wire:
                wire.sendall(question)
                assert answer in wire.recv(200)
        finally:
            server.terminate()
    assert model in told


def test_a_model_that_is_not_simulated_is_refused():
    told = lamella("mock", "potentiostat", "--model", "2182", code=2).stderr
    assert f"there is {', '.join(driver_names())}" in told
    told = lamella("mock", "camera", "--scenario", "nothing", code=2).stderr
    assert "no simulated scenario" in told


def test_verify_finds_one_flipped_bit(finished, tmp_path):
    assert "no problem found" in lamella("verify", finished).stdout
    with Session.open(finished) as session:
        pixels = np.asarray(session.frames("camera")[3]).tobytes()
    raw = bytearray(finished.read_bytes())
    raw[raw.find(pixels) + 100] ^= 1
    (tmp_path / "flipped.h5").write_bytes(raw)
    result = lamella("verify", tmp_path / "flipped.h5", code=1)
    assert "checksum" in result.stdout


def test_a_file_that_is_no_session_is_refused(tmp_path):
    (tmp_path / "no.h5").write_text("no session")
    for verb in (
        ("report", "-o", tmp_path / "a.html"),
        ("correlate",),
        ("track", "--tracker", "front"),
    ):
        result = lamella(verb[0], tmp_path / "no.h5", *verb[1:], code=2)
        assert "no.h5" in result.stderr
    assert not (tmp_path / "a.html").exists()


def test_track_correlate_and_report_work_on_a_finished_session(finished, tmp_path):
    copy = tmp_path / "copy.h5"
    copy.write_bytes(finished.read_bytes())
    found = last_json(lamella("track", copy, "--tracker", "front", "--json"))
    assert found["valid"] > 0.9 * found["frames"]
    assert "largest drift" in lamella("track", copy, "--tracker", "drift").stdout
    text = lamella("correlate", copy).stdout
    assert "charge by ledger term" in text
    assert "front velocity with ionic current" in text
    assert "wrote" in lamella("report", copy, "-o", tmp_path / "a.html").stdout
    assert "did you mean 'front'" in lamella("track", copy, "--tracker", "frnt", code=2).stderr


def test_the_summary_reads_like_one(finished):
    from rich.console import Console

    with Path(os.devnull).open("w") as nowhere:
        console = Console(width=160, record=True, file=nowhere)
        console.print(render_summary(summarise(finished)))
    text = console.export_text()
    assert "ended because" in text
    assert "not measured" in text
    assert "simulated hardware" in text


def test_contact_is_told_with_its_evidence():
    found = last_json(lamella("contact", EXAMPLE, "--speed", "max", "--json"))
    assert found["contact"] == "cell"
    assert found["confidence"] > 0.99
    assert found["ohm_low"] < 1.43e9 < found["ohm_high"]


def test_calibrate_writes_a_file_that_a_run_can_name(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "runner.cli", "calibrate", str(EXAMPLE)),
            *("-o", str(tmp_path / "holder.h5"), "--speed", "max", "--json"),
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["conductance_S"] == pytest.approx(1e-12, rel=0.02)
    assert found["capacitance_F"] == pytest.approx(150e-12, rel=0.01)
    (noise,) = found["noise"]
    assert noise["range_A"] == 1e-10
    assert noise["reading_A"] == pytest.approx(noise["stated_A"], rel=0.1)
    assert found["valid_for_s"] == 12 * 3600
    named = EXAMPLE.read_text("utf-8").replace(
        '# calibration = "holder.h5" ', 'calibration = "holder.h5" '
    )
    (tmp_path / "named.toml").write_text(named, "utf-8")
    assert "0.0 h old, believed for 12 h" in told("check", tmp_path / "named.toml")
    bad = lamella("calibrate", EXAMPLE, "-o", tmp_path / "x.h5", "--valid-for", "0 h", code=2)
    assert "more than nothing" in bad.stderr
    again = lamella("calibrate", EXAMPLE, "-o", tmp_path / "holder.h5", code=2)
    assert "--overwrite" in again.stderr


# --- other programs' files -----------------------------------------------------------------


def images(folder, numbers, size=(96, 64)):
    rng = np.random.default_rng(0)
    scene = rng.poisson(40, (200, 200)).astype(np.uint8)
    paths = []
    for number in numbers:
        path = folder / f"frame_{number}.png"
        Image.fromarray(scene[: size[1], : size[0]]).save(path)
        paths.append(path)
    return paths


def test_images_are_imported_with_their_gaps(tmp_path):
    paths = images(tmp_path, [9, 10, 12])
    words = ("import", "-o", tmp_path / "a.h5", "--frame-interval", "2 s", "--pixel-size", "1 nm")
    found = last_json(lamella(*words, *paths[::-1], "--json"))
    assert (found["frames"], found["gaps"]) == (3, 1)
    assert any("last number" in text for text in found["assumptions"])
    with Session.open(tmp_path / "a.h5") as session:
        table = session.frame_table("camera")
        assert table["index"].tolist() == [9, 10, 12]
        assert table["t_start_ns"].tolist() == [0, 2 * 10**9, 6 * 10**9]
        assert table["dropped_before"].tolist() == [0, 0, 1]
        assert len(session.provenance.files) == 3
    assert "imported" in lamella("correlate", tmp_path / "a.h5").stdout
    refused = lamella(*words, *paths, code=2)
    assert "--overwrite" in refused.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "nothing to import"),
        (("--frames", "frame_1.png"), "say how far apart"),
        (("--frame-interval", "1", "--frames", "frame_1.png"), "has no unit"),
        (("--frame-interval", "1 nm", "--frames", "frame_1.png"), "is a length"),
        (("--echem", "frame_1.png"), "no reader for .png"),
        (("--frame-interval", "1 s", "--frames", "odd.dm9"), "no reader for .dm9"),
        (("--frame-interval", "1 s", "--frames", "bad.png"), "cannot be read"),
    ],
)
def test_an_import_that_cannot_be_leaves_nothing(tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    images(tmp_path, [1])
    (tmp_path / "odd.dm9").write_text("?")
    (tmp_path / "bad.png").write_text("?")
    result = lamella("import", "-o", "a.h5", *words, code=2)
    assert says in result.stderr
    assert not list(tmp_path.glob("a.h5*"))


@pytest.mark.skipif(not (REAL / "echem").is_dir(), reason=f"the measured files are not in {REAL}")
def test_a_measured_pssession_keeps_its_charge(tmp_path):
    file = REAL / "echem" / "EN_1Hz_3600s.pssession"
    found = last_json(lamella("import", "-o", tmp_path / "a.h5", "--echem", file, "--json"))
    assert found["charge_C"] == pytest.approx(-1.406247e-5, rel=1e-6)
    assert found["logged_charge_C"] == pytest.approx(-1.406247e-5, rel=1e-6)
    with Session.open(tmp_path / "a.h5") as session:
        samples = session.samples()
        assert len(samples) == 3601
        assert samples["charge"].iloc[-1] == pytest.approx(-1.406247e-5, rel=1e-6)
        assert samples["voltage"].mean() == pytest.approx(4.049, abs=0.01)
        left_sum = float(samples["current"].iloc[:-1].sum())
    assert left_sum != pytest.approx(-1.4062474e-5, rel=1e-6)
    lamella("correlate", tmp_path / "a.h5")
    lamella("report", tmp_path / "a.h5", "-o", tmp_path / "a.html")
    with Session.open(tmp_path / "a.h5") as session:
        assert np.all(np.isnan(session.table("ledger")["ionic"]))


@pytest.mark.skipif(
    not (REAL / "ti_annealing_tem").is_dir(), reason=f"the measured frames are not in {REAL}"
)
@pytest.mark.skipif(not (REAL / "echem").is_dir(), reason=f"the measured files are not in {REAL}")
def test_a_file_of_another_maker_becomes_a_session(tmp_path):
    out = tmp_path / "gamry.h5"
    source = REAL / "echem" / "gamry_chronoa_data.dta"
    found = last_json(lamella("import", "-o", out, "--echem", source, "--json"))
    assert (found["samples"], found["logged_charge_C"]) == (10, None)
    assert found["charge_C"] == pytest.approx(1.3766e-6, rel=1e-4)
    assert any("5258" in text for text in found["assumptions"])
    assert "no problem found" in lamella("verify", out).stdout


def test_a_first_row_that_is_not_at_zero_moves_the_start(tmp_path):
    table = tmp_path / "late.csv"
    table.write_text("time_s,Ewe_V\n100,3.9\n101,3.91\n102,3.92\n")
    found = last_json(lamella("import", "-o", tmp_path / "late.h5", "--echem", table, "--json"))
    assert found["charge_C"] is None  # no current: unknown, not nothing
    with Session.open(tmp_path / "late.h5") as session:
        assert session.sample_columns()["t_ns"].tolist() == [0, 10**9, 2 * 10**9]
        assert np.all(np.isnan(session.sample_columns()["charge"]))


def test_measured_frames_are_imported_tracked_and_reported(tmp_path):
    paths = [REAL / "ti_annealing_tem" / f"{n}.png" for n in range(1733, 1740)]
    lamella(
        *("import", "-o", tmp_path / "ti.h5", "--frame-interval", "1 s"),
        *("--pixel-size", "0.2554 nm", *paths),
    )
    found = last_json(lamella("track", tmp_path / "ti.h5", "--tracker", "drift", "--json"))
    assert found["valid"] == 7
    with Session.open(tmp_path / "ti.h5") as session:
        drift = session.table("drift/camera")
        assert drift["dy"][-1] == pytest.approx(10.68, abs=0.5)
        assert drift["dx"][-1] == pytest.approx(10.17, abs=0.5)
    lamella("report", tmp_path / "ti.h5", "-o", tmp_path / "ti.html")
    refused = lamella("track", tmp_path / "ti.h5", "--tracker", "front", code=2)
    assert "film's thickness" in refused.stderr


# --- errors --------------------------------------------------------------------------------


def test_errors_in_groups_are_told_by_their_cause():
    from cameras.errors import CameraLost
    from runner.quantities import QuantityError

    group = ExceptionGroup("g", [KeyError("x"), ExceptionGroup("h", [CameraLost("gone")])])
    assert exit_code_of(group) is ExitCode.FAILED
    assert message_of(group) == "gone"
    assert exit_code_of(QuantityError("q")) is ExitCode.REFUSED
    assert exit_code_of(KeyError("x")) is None
