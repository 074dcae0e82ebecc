"""The screen shows itself before anything heavy is loaded, and a real pair runs through it to the exported findings."""

import subprocess
import sys
from pathlib import Path

from tests.artifacts import tiny_apr, tiny_gguf
from tests.tui import fakes
from tests.tui.conftest import screen_text, until
from workbench.app.app import WorkbenchApp
from workbench.session.session import Session, SessionSpec, Side

ROOT = Path(__file__).parents[2]
HEAVY = ("numba", "h5py", "gguf", "safetensors", "tokenizers", "jinja2", "yaml")


def test_the_screen_loads_no_compiler_no_store_and_no_model():
    code = f"import sys, workbench.app.app; sys.exit(', '.join(set({HEAVY}) & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


async def test_the_capture_starts_after_the_first_paint(session):
    seen = []

    def start():
        seen.append(screen_text(pilot))
        return fakes.FakeCapture(None)

    app = WorkbenchApp(session, start)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: seen)
        assert "attn_norm" in seen[0]


async def test_a_real_pair_is_captured_exported_and_read_again(tmp_path):
    sizes = {"layers": 2, "vocab": 64}
    tiny_gguf(tmp_path / "a.gguf", **sizes)
    tiny_apr(tmp_path / "b.apr", **sizes)
    sides = Side(str(tmp_path / "a.gguf"), "f32"), Side(str(tmp_path / "b.apr"), "f64")
    session = Session.create(tmp_path / "pair", SessionSpec(*sides, (3, 1, 4, 1, 5)))
    computed = await figures(session, ())
    assert len(computed) == 2 * 16 + 3
    assert await figures(session, ("e",)) == computed
    assert session.findings_path.read_text().startswith("# ")
    assert [entry["kind"] for entry in session.entries()] == ["compared", "bisected", "exported"]


async def figures(session, keys):
    """Measures of all cells in a new app over a session, after pressing keys."""
    app = WorkbenchApp(Session.open(session.folder))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: app.map_screen.phase == "finished")
        assert app.map_screen.exit_code() == 0
        for key in keys:
            await pilot.press(key)
            await until(pilot, lambda: session.findings_path.name in "".join(screen_text(pilot).split()))
        return {site: cell.measures() for site, cell in app.map_screen.model.cells.items()}
