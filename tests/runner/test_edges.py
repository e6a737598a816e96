"""Edges of trigger lines: read, stored, matched, and compared with the network's clocks."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from click.testing import CliRunner

from runner.analysis import correlate_session
from runner.cli import main
from runner.edge_files import EdgeFileError, named_edges, parse_columns, read_edges
from runner.edge_record import PATH
from runner.importing import import_session
from runner.summary import summarise
from session import Session
from session.editor import SessionEditor
from session.records import EDGE_DTYPE, SessionHeader
from session.validate import validate
from session.writer import SessionWriter
from sync.clockfit import ClockFit
from tests.cameras.files.writers import EPOCH_NS, mib, pictures

S = 10**9
RATE = 1 + 20e-6  # of the potentiostat's clock against the camera's
LATE_NS = 3_700_000_000  # from the first reading to the first exposure


def edge_times_ns(count=40):
    """Edges at varied intervals, so that each is known by its neighbours."""
    steps = np.random.default_rng(5).integers(200 * 10**6, 900 * 10**6, count)
    return np.cumsum(steps)


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "columns", "device_ns"),
    [
        ("time_ns\n1700000000123456789\n", "", [1_700_000_000_123_456_789]),
        (
            "Time [s];Level\n1700000000.123456789;1\n",
            "time_s=Time [s]",
            [1_700_000_000_123_456_789],
        ),
        ("\ufefftime_us\tline\n-1.5\tA\n\n2.25\tB\n", "", [-1500, 2250]),
    ],
)
def test_times_are_exact(tmp_path, text, columns, device_ns):
    path = tmp_path / "edges.csv"
    path.write_text(text, "utf-8")
    found = read_edges(path, "camera", parse_columns(columns))
    assert found.device_ns.tolist() == device_ns


def test_line_and_polarity_are_read(tmp_path):
    path = tmp_path / "edges.csv"
    path.write_text("time_ms,polarity,Channel\n1,rising,A\n2,FALL,A\n3,,B\n")
    found = named_edges(f"potentiostat={path}", parse_columns("line=Channel"))
    assert found.polarity.tolist() == [1, -1, 0]
    assert found.line == ("A", "A", "B")
    assert found.source == "potentiostat"
    assert found.sigma_ns == pytest.approx(10**6 / math.sqrt(12))


@pytest.mark.parametrize(
    ("text", "columns", "says"),
    [
        ("when\n1\n", "", "one column of times is wanted, and 0 were found in when"),
        ("time_s,time_ms\n1,2\n", "", "and 2 were found"),
        ("time_s\n1\n", "line=Channel", "has no column 'Channel'; there is time_s"),
        ("time_s\nsoon\n", "", "row 2 holds no edge: 'soon' is no time"),
        ("time_s\ninf\n", "", "row 2 holds no edge: 'inf' is no time"),
        ("time_s\n1e30\n", "", "row 2 .*of this age"),
        ("time_s,polarity\n1,1\n2,sideways\n", "", "row 3 .*neither rising nor falling"),
        ("line,time_s\nA\n", "", "row 2 .*too short"),
        ("time_s\n", "", "holds no edge"),
        ("", "", "found in nothing"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, text, columns, says):
    path = tmp_path / "edges.csv"
    path.write_text(text)
    with pytest.raises(EdgeFileError, match=rf"edges\.csv: .*{says}"):
        read_edges(path, "camera", parse_columns(columns))


def test_words_that_mean_nothing_are_refused(tmp_path):
    with pytest.raises(EdgeFileError, match="NAME=COLUMN is wanted, with one of time_ns"):
        parse_columns("clock=Time")
    with pytest.raises(EdgeFileError, match="potentiostat=FILE or camera=FILE"):
        named_edges("edges.csv", {})
    with pytest.raises(EdgeFileError, match="cannot be read"):
        read_edges(tmp_path / "none.csv", "camera")


# --- import -----------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """A film and readings with a hidden offset and rate, and the same pulses seen by both."""
    stamps_ns = EPOCH_NS + np.array([0, 1, 2, 5, 9, 15]) * S
    film = mib(tmp_path / "film.mib", pictures(6), [1, 2, 3, 4, 5, 6], stamps_ns)
    echem = tmp_path / "echem.csv"
    rows = [f"{100 + t:.3f},3.9,1e-12" for t in range(30)]
    echem.write_text("\n".join(["time/s,Ewe/V,I/A", *rows]) + "\n")
    # The first exposure begins half an exposure before its stamp, at LATE_NS of the readings.
    pulses_ns = edge_times_ns()
    origin_ns = EPOCH_NS - 500_000
    camera_ns = origin_ns + np.round((pulses_ns - LATE_NS) / RATE).astype(np.int64)
    keep = np.arange(len(pulses_ns)) % 11 != 3  # some are missing from the camera's log
    camera = tmp_path / "camera.csv"
    camera.write_text("time_ns\n" + "\n".join(map(str, camera_ns[keep] // 1000 * 1000)) + "\n")
    meter = tmp_path / "meter.csv"
    meter.write_text(
        "t,edge\n" + "\n".join(f"{100 + ns / 1e9:.6f},1" for ns in pulses_ns.tolist()) + "\n"
    )
    return film, echem, camera, meter, stamps_ns


def imported(tmp_path, files, **others):
    film, echem, camera, meter, _ = files
    edges = [
        read_edges(meter, "potentiostat", {"time_s": "t", "polarity": "edge"}),
        read_edges(camera, "camera"),
    ]
    path = tmp_path / "a.h5"
    told = {"echem": echem, "frames": [film], "edges": edges, **others}
    return path, import_session(path, **told)


def test_the_command_takes_edges_and_refuses_those_without_a_clock(tmp_path, files):
    film, echem, camera, meter, _ = files
    meter.write_text(meter.read_text().replace("t,edge", "time_s,edge"))
    words = ["import", "-o", tmp_path / "a.h5", "--echem", echem, "--frames", film, "--json"]
    edges = ["--edges", f"potentiostat={meter}", "--edges", f"camera={camera}"]
    result = CliRunner().invoke(main, [str(word) for word in (*words, *edges)])
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout.strip().splitlines()[-1])
    assert any("tied to readings by 36 edges" in text for text in told["assumptions"])
    refused = CliRunner().invoke(main, [str(word) for word in (*words, "--edges", meter)])
    assert refused.exit_code == 2
    assert "potentiostat=FILE or camera=FILE" in refused.stderr.replace("\n", " ")


def test_frames_are_tied_to_readings_by_edges(tmp_path, files):
    path, summary = imported(tmp_path, files)
    stamps_ns = files[4]
    true_ns = LATE_NS + (stamps_ns - stamps_ns[0]) * RATE
    assert validate(path) == []
    with Session.open(path) as session:
        table = session.frame_table("camera")
        error_ns = table["t_start_ns"] - true_ns
        assert np.max(np.abs(error_ns)) < 1_000
        # Anywhere in an exposure of 1 ms: that no edge can tell.
        np.testing.assert_allclose(table["t_sigma_ns"], 10**6 / math.sqrt(12), rtol=1e-3)
        assert table["device_start_ns"].tolist() == stamps_ns.tolist()
        edges = session.table("edges")
        assert len(edges) == 40 + 36
        of_camera = edges["source"] == "camera"
        seen = set(np.round(edges["t_ns"][~of_camera], -4).tolist())
        assert {round(int(t), -4) for t in edges["t_ns"][of_camera]} <= {
            t + d for t in seen for d in (-10_000, 0, 10_000)
        }
        (fit,) = session.clock_fits("camera")
        assert fit.rate == pytest.approx(RATE, abs=5e-7)
        on_host = ClockFit(**asdict(fit)).to_host_ns(stamps_ns - 500_000)
        assert np.max(np.abs(on_host - true_ns)) < 1_000
        assert session.attributes("clocks/camera/fit")["method"] == "edges"
    assert any("tied to readings by 36 edges" in text for text in summary.assumptions)
    assert not any("share no clock" in text for text in summary.assumptions)


def test_edges_that_tie_records_are_told_and_not_taken_for_a_proof(tmp_path, files):
    path, _ = imported(tmp_path, files)
    correlate_session(path)
    correlate_session(path)  # once more changes nothing
    with Session.open(path) as session:
        found = session.table(PATH)
        assert found["matched"].tolist() == [36]
        assert abs(found["difference"][0]) < 1e-6
        assert np.isnan(found["agrees"][0])
        assert [e.kind for e in session.events()].count("edges") == 1
    assert "tie both records to" in summarise(path).edges.verdict


def test_edges_that_are_all_alike_tie_nothing(tmp_path, files):
    film, echem, camera, meter, _ = files
    camera.write_text("time_ns\n" + "\n".join(str(EPOCH_NS + i * S) for i in range(40)))
    meter.write_text("t,edge\n" + "\n".join(f"{100 + i},1" for i in range(40)))
    path, summary = imported(tmp_path, (film, echem, camera, meter, None))
    assert any("edges do not tie" in text for text in summary.assumptions)
    assert any("share no clock" in text for text in summary.assumptions)
    with Session.open(path) as session:
        assert session.frame_table("camera")["t_start_ns"][0] == 0
        assert len(session.table("edges")) == 80
    correlate_session(path)
    assert "are not matched" in summarise(path).edges.verdict


def test_edges_of_a_device_that_is_not_imported_are_refused(tmp_path, files):
    with pytest.raises(EdgeFileError, match=r"clock of 'potentiostat', but there is 'camera'"):
        imported(tmp_path, files, echem=None)


# --- a run ------------------------------------------------------------------------------------


def fit_of(offset_ns, *, sigma_ns, bound_ns):
    return ClockFit(
        reference_device_ns=0,
        reference_host_ns=offset_ns,
        rate=1.0,
        rate_sigma=0.0,
        offset_sigma_ns=sigma_ns,
        covariance_ns=0.0,
        bound_ns=bound_ns,
        valid_from_ns=0,
        valid_to_ns=100 * S,
        count=50,
    )


def recorded(path, *, hidden_ns, bound_ns=0.0, pulses_ns=None, lines=("", "")):
    """A session whose camera is ``hidden_ns`` later than the network believes."""
    pulses_ns = edge_times_ns() if pulses_ns is None else pulses_ns
    header = SessionHeader(
        title="a",
        experiment_text="",
        start_time="2026-01-01T00:00:00+00:00",
        host_start_ns=0,
        simulated=True,
        clocks=("potentiostat", "camera"),
    )
    with SessionWriter(path, header) as writer:
        for source, line, offset_ns in (
            ("potentiostat", lines[0], 5 * S),
            ("camera", lines[1], 9 * S + hidden_ns),
        ):
            # Falling ones too, which lie elsewhere in both: only rising ones are compared.
            late_ns = 50_000_000 if source == "camera" else 70_000_000
            for polarity, shift_ns in ((1, 0), (-1, late_ns)):
                rows = np.zeros(len(pulses_ns), EDGE_DTYPE)
                rows["source"], rows["line"], rows["polarity"] = source, line, polarity
                rows["device_ns"] = pulses_ns - offset_ns + shift_ns
                rows["device_sigma_ns"] = 300.0
                rows["t_sigma_ns"] = np.inf
                writer.append_edges(rows)
        writer.finish("done", "2026-01-01T00:01:00+00:00")
    with SessionEditor.open(path) as editor:
        for clock, offset_ns in (("potentiostat", 5 * S), ("camera", 9 * S)):
            fit = fit_of(offset_ns, sigma_ns=2_000.0, bound_ns=bound_ns)
            editor.put_table(f"clocks/{clock}/fit", {k: [v] for k, v in asdict(fit).items()})
    correlate_session(path)
    assert validate(path) == []
    return path


@pytest.mark.parametrize(
    ("hidden_ns", "bound_ns", "agrees"),
    [(3_000, 0.0, True), (400_000, 0.0, False), (400_000, 250_000.0, True)],
)
def test_edges_and_network_are_compared(tmp_path, hidden_ns, bound_ns, agrees):
    path = recorded(tmp_path / "a.h5", hidden_ns=hidden_ns, bound_ns=bound_ns)
    with Session.open(path) as session:
        found = session.table(PATH)
        assert found["difference"][0] == pytest.approx(hidden_ns / 1e9, abs=1e-9)
        assert found["matched"].tolist() == [40]
        assert found["network_sigma"][0] == pytest.approx(2e-6 * math.sqrt(2))
        assert found["difference_bound"][0] == pytest.approx(2 * bound_ns / 1e9)
        assert bool(found["agrees"][0]) is agrees
        (event,) = (e for e in session.events() if e.source == "edges")
        edges = session.table("edges")
        first = edges["t_ns"][edges["source"] == "potentiostat"][0]
        assert first == edge_times_ns()[0]
    assert event.kind == ("edges" if agrees else "clock_disagreement")
    summary = summarise(path)
    assert summary.codes == ()
    assert bool(summary.warnings) is not agrees


def test_pulses_that_are_alike_are_told_apart_by_the_network(tmp_path):
    path = recorded(tmp_path / "a.h5", hidden_ns=400_000, pulses_ns=np.arange(1, 41) * 500_000_000)
    with Session.open(path) as session:
        assert session.table(PATH)["difference"][0] == pytest.approx(4e-4, abs=1e-9)


def test_lines_go_together_by_name_or_where_there_is_one_each(tmp_path):
    path = recorded(tmp_path / "a.h5", hidden_ns=0, lines=("mark", "trigger in"))
    with Session.open(path) as session:
        assert session.table(PATH)["matched"].tolist() == [40]


def test_a_session_whose_lines_may_go_together_in_several_ways_says_so(tmp_path):
    path = recorded(tmp_path / "a.h5", hidden_ns=0)
    with Session.open(path) as session:
        assert session.has(PATH)
    header = SessionHeader(
        title="a", experiment_text="", start_time="", host_start_ns=0, simulated=True
    )
    other = tmp_path / "b.h5"
    with SessionWriter(other, header) as writer:
        for source, line in (("potentiostat", "a"), ("potentiostat", "b"), ("camera", "c")):
            rows = np.zeros(5, EDGE_DTYPE)
            rows["source"], rows["line"] = source, line
            rows["t_ns"] = edge_times_ns(5)
            writer.append_edges(rows)
        writer.finish("done", "")
    correlate_session(other)
    assert "more than one line may be the same" in summarise(other).edges.verdict


def test_edges_of_one_record_alone_are_kept_and_tell_nothing(tmp_path):
    header = SessionHeader(
        title="a", experiment_text="", start_time="", host_start_ns=0, simulated=True
    )
    path = tmp_path / "a.h5"
    with SessionWriter(path, header) as writer:
        rows = np.zeros(5, EDGE_DTYPE)
        rows["source"], rows["line"] = "camera", ""
        rows["t_ns"] = edge_times_ns(5)
        writer.append_edges(rows)
        writer.finish("done", "")
    correlate_session(path)
    with Session.open(path) as session:
        assert len(session.table("edges")) == 5
        assert not session.has(PATH)
