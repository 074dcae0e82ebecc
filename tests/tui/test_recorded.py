"""The screen as a whole at three sizes, and the way from the open map to the findings, beside what was recorded."""

import pytest

from kernels.stages import Site
from tests.memory_model import spine
from tests.tui import fakes
from tests.tui.conftest import app_for, screen_text, until, until_filled
from tests.tui.recording import require_recorded
from workbench.app.app import WorkbenchApp
from workbench.app.map.below import Below
from workbench.bisect.verdict import Bisection, Culprit
from workbench.cells.decomposition import Checked, Decomposition
from workbench.demo import demo_session
from workbench.jobs.bisected import keep
from workbench.session.session import Session

LAYERS = 24
SIZES = ((80, 24), (120, 40), (200, 60))
BROKEN = Site(9, "qkv_matmul")


def investigated(session: Session, layers: int) -> list[Checked]:
    """Keep a verdict in a session; return all cells as they were run again, one of them wrong."""
    culprit = Culprit(
        BROKEN, "weights", "permuted_rope", "rows of q_proj of B are in the other rotary order", "q_proj", 0.0
    )
    keep(session, fakes.bisected() | Bisection("divergent", BROKEN, culprit, (), None, ()).to_json(), "DIVERGENT")
    cells = []
    for number, site in enumerate(spine(layers)):
        times = 355.0 if site == BROKEN else (number % 5) / 2
        own = Decomposition(site, 0.4, times * 0.005, 0.1, 0.005, 1.0, 1.0)
        cells.append(Checked(own, 1.5, site == BROKEN))
    return cells


@pytest.mark.parametrize(
    ("size", "layers"), [(size, LAYERS) for size in SIZES] + [((80, 24), 126), ((120, 40), 80), ((200, 60), 80)]
)
async def test_the_map_looks_as_recorded(session, size, layers):
    cells = investigated(session, layers)
    app, _ = app_for(session, layers=layers)
    async with app.run_test(size=size) as pilot:
        screen = await until_filled(pilot)
        await until(pilot, lambda: screen.known is not None)
        for checked in cells:
            screen.take_checked(checked)
        screen.model.viewed = True
        screen.take_known(screen.known.__class__(screen.known.bisected, None, {c.cell.site: c for c in cells}, True))
        await pilot.press("b", "i", "i", "i", "i")
        below = screen.query_one(Below)
        await until(pilot, lambda: below.size.height < 10 or "What was done" in screen_text(pilot))
        of = "" if layers == LAYERS else f"-{layers}-layers"
        require_recorded(f"map-{size[0]}x{size[1]}{of}", screen_text(pilot))


async def test_the_way_to_the_findings_is_as_recorded(tmp_path):
    session = demo_session("permuted_rope", 3, tmp_path / "demo")
    app = WorkbenchApp(session)
    seen: list[str] = []
    async with app.run_test(size=(120, 40)) as pilot:
        screen = app.map_screen

        def see(step: str) -> None:
            seen.append(f"=== {step} ===\n{screen_text(pilot)}")

        def settled(words: str) -> bool:
            return not screen.asking and not screen._changed and words in screen_text(pilot)

        await until(pilot, lambda: screen.known is not None and screen.known.whole and settled("ran 99 cells"))
        see("opened")
        await pilot.press("b")
        await until(pilot, lambda: settled("qkv_matmul over the layers"))
        see("b: to what is broken")
        await pilot.press("enter")
        await until(pilot, lambda: settled("PROOF"))
        see("enter: why")
        await pilot.press("escape", "P")
        await until(pilot, lambda: settled("permuted_rope") or settled("KL"))
        see("P: the proof again")
        await pilot.press("escape", "a", *"mine")
        await until(pilot, lambda: "mine" in screen_text(pilot))
        see("a: a note")
        await pilot.press("escape", "e")
        await until(pilot, lambda: settled("exported findings.md"))
        see("e: the findings")
    again = WorkbenchApp(Session.open(session.folder))
    async with again.run_test(size=(120, 40)) as pilot:
        screen = again.map_screen
        await until(pilot, lambda: screen.known is not None and screen.known.whole)
        await pilot.press("i", "i", "i", "i")
        await until(pilot, lambda: settled("99 cells run again") and settled("exported findings.md"))
        assert not screen.laboratory.waiting
        assert screen.laboratory.inquiry is None, "nothing is run anew"
        see("reopened, in multiples of what rounding can cause")
    assert session.findings_path.read_text(encoding="utf-8").startswith("# ")
    require_recorded("walk-120x40", "\n".join(seen), figures=False)
