"""The notebooks of the tutorials: they run, and are kept as they ran."""

import ast
import asyncio
import inspect
import json
import os
import re
from pathlib import Path

import matplotlib as mpl
import pytest

from session import Session

ROOT = Path(__file__).parents[2]
TUTORIALS = ROOT / "docs" / "tutorials"
SIMULATED, MEASURED = TUTORIALS / "simulated-run.ipynb", TUTORIALS / "measured-file.ipynb"
REAL = Path(os.environ.get("LAMELLA_REAL_DATA", ROOT.parent / "shared" / "data"))
MOST_BYTES = 500_000
# A path of the computer that ran it, or an address that it asked.
MACHINE = re.compile(r"/(tmp|home|root|work|Users|var)/|[A-Z]:\\\\|https?://|0x[0-9a-f]{6,}")
pytestmark = pytest.mark.timeout(600)


def cells_of(path):
    return json.loads(path.read_text("utf-8"))["cells"]


def code_of(path):
    return ["".join(c["source"]) for c in cells_of(path) if c["cell_type"] == "code"]


def run_all(sources, namespace):
    """Run cells as a notebook does, which may await; return what the last line of each gave."""
    values = []
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as loop:

        def evaluate(tree, mode):
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            found = eval(compile(tree, "cell", mode, flags=flags), namespace)
            return loop.run(found) if inspect.iscoroutine(found) else found

        for source in sources:
            body = ast.parse(source).body
            last = body.pop() if isinstance(body[-1], ast.Expr) else None
            evaluate(ast.Module(body, []), "exec")
            values.append(None if last is None else evaluate(ast.Expression(last.value), "eval"))
    return values


@pytest.fixture
def figures():
    """Draw into memory, and leave no figure open."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    yield plt
    plt.close("all")


@pytest.mark.parametrize("path", [SIMULATED, MEASURED], ids=lambda path: path.stem)
def test_it_is_kept_as_it_ran(path):
    assert path.stat().st_size < MOST_BYTES
    code = [cell for cell in cells_of(path) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    for output in outputs:
        shown = {k: v for k, v in output.get("data", {}).items() if k != "image/png"}
        text = json.dumps([shown, output.get("text", "")], ensure_ascii=False)
        assert not MACHINE.search(text), text
        assert "<script" not in text


def test_the_simulated_run_runs(figures, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    sources = code_of(SIMULATED)
    plan = next(i for i, source in enumerate(sources) if "TEXT =" in source)
    for old, new in (("6 s", "3 s"), ("45 s", "9 s"), ("35 s", "6 s")):
        assert old in sources[plan]
        sources[plan] = sources[plan].replace(old, new)
    # Frames that are shown, and are not there in a shorter film.
    shown = next(i for i, source in enumerate(sources) if "(20, 250, 480)" in source)
    sources[shown] = sources[shown].replace("(20, 250, 480)", "(20, 60, 100)")
    namespace = {}
    values = run_all(sources, namespace)
    assert "completed" in values
    assert any(isinstance(value, Session) for value in values)
    assert namespace["summary"].exit_code == 0
    assert len(figures.get_fignums()) == 4


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the measured files are not in {REAL}")
def test_the_measured_file_is_read(figures, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("LAMELLA_REAL_DATA", str(REAL))
    namespace = {}
    run_all(code_of(MEASURED), namespace)
    assert namespace["ours"] == pytest.approx([10.57, 10.09], abs=0.5)  # another estimator
    assert len(figures.get_fignums()) == 3
