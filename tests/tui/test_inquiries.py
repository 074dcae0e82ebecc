"""Questions about a pair: bisect, views, patch, bytes; each is asked with a key and answered in words."""

import pytest

from kernels.stages import Site
from tests.memory_model import spine
from tests.tui import fakes
from tests.tui.conftest import screen_text, until, until_filled
from workbench.app.app import WorkbenchApp
from workbench.app.map.view import MapView
from workbench.app.pages.page_screen import PageScreen, VerdictScreen
from workbench.cells.decomposition import Checked, Decomposition
from workbench.cells.flips import Flips
from workbench.demo import demo_session
from workbench.jobs.bisected import keep, last_bisection
from workbench.jobs.inquiry import Answered, Doing, Refused, event_from_wire, event_to_wire
from workbench.session.session import Session

SPOILT = Site(2, "qkv_matmul")


def checked(site: Site) -> Checked:
    """A cell whose local difference is a tenth of its floor, or at SPOILT a hundred times it."""
    local = 0.5 if site == SPOILT else 0.0005
    return Checked(
        Decomposition(site, 0.6, local, 0.1, 0.005, 1.0, 1.1, Flips(3, 100, 0.1, 0.4)), 1.5, site == SPOILT, "", False
    )


def app_asking(session: Session, *events: object) -> tuple[WorkbenchApp, list, list]:
    """An app with a finished capture, whose questions are answered by `events`; the questions and their processes."""
    asked, processes = [], []

    def start(inquiry):
        asked.append(inquiry)
        processes.append(fakes.FakeCapture(*events))
        return processes[-1]

    return WorkbenchApp(session, lambda: fakes.FakeCapture(*fakes.whole_capture()), start), asked, processes


def test_events_pass_the_pipe_without_loss():
    for event in (Doing(1, 2, "layer 1"), checked(SPOILT), Answered("words", SPOILT), Answered(""), Refused("why")):
        assert event_from_wire(event_to_wire(event)) == event


async def test_bisect_shows_how_far_it_is_goes_to_the_culprit_and_says_why(session):
    text = "DIVERGENT at layer 2 qkv_matmul: permuted_rope (weights).\n\nwhy        [b]rows[/b] are permuted"
    app, asked, processes = app_asking(session, Doing(1, 4, "layer 1"))
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        await pilot.press("b")
        await until(pilot, lambda: "bisect 1/4 layer 1" in screen_text(pilot))
        processes[0].say(Answered(text, SPOILT), None)
        await until(pilot, lambda: isinstance(app.screen, VerdictScreen))
        assert "[b]rows[/b] are permuted" in screen_text(pilot)
        await pilot.press("escape")
        assert screen.model.cursor == SPOILT
        assert [inquiry.kind for inquiry in asked] == ["bisect"]
        await until(pilot, lambda: not screen.asking)


async def test_escape_gives_a_bisection_up(session):
    app, _, processes = app_asking(session, Doing(1, 4, "layer 1"))
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        await pilot.press("b")
        await until(pilot, lambda: "bisect 1/4" in screen_text(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: processes[0].cancelled and not screen.asking)
        assert app.screen is screen


async def test_a_verdict_is_kept_in_the_session(session):
    text = "NUMERICS ONLY: \x1b[2Jnothing is broken."
    keep(session, fakes.bisected(), text)
    app, asked, _ = app_asking(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await pilot.press("b")
        await until(pilot, lambda: "NUMERICS ONLY" in screen_text(pilot))
        assert "\\x1b[2J" in screen_text(pilot)
        assert "\x1b" not in screen_text(pilot)
        assert not asked
        await pilot.press("r")
        await until(pilot, lambda: asked)
        assert asked[0].kind == "bisect"


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_views_are_streamed_and_what_is_not_known_is_no_number(session, size):
    order = spine(4)
    app, asked, processes = app_asking(session, *map(checked, order[:40]))
    async with app.run_test(size=size) as pilot:
        screen = await until_filled(pilot)
        assert "observed" in screen_text(pilot).splitlines()[0]
        await pilot.press("i")
        await until(pilot, lambda: len(screen.model.checked) == 40)
        assert screen_text(pilot).startswith(" local ‖d‖/‖B‖ │ all 4 tokens")
        await pilot.press("n")
        assert screen.model.cursor == SPOILT
        await until(pilot, lambda: "local 0.5!, inherited 0.1" in screen_text(pilot))
        assert "local is 100.0× its floor" in screen_text(pilot)
        view = screen.query_one(MapView)
        assert view.render_line(19).text.split()[-1] == "?"
        processes[0].say(*map(checked, order[40:]), Answered(""), None)
        await until(pilot, lambda: screen.model.viewed and not screen.asking)
        signs = []
        for _ in range(4):
            await pilot.press("i")
            await until(pilot, lambda: not screen._changed)
            signs.append(screen_text(pilot).splitlines()[-2].rpartition("0-7 ")[2].strip())
        assert screen.model.view.aspect == "observed"
        assert size[1] == 24 or signs == ["×10 a step", "×2 a step", "×10 a step", "×10 a step"]
        assert len(asked) == 1


async def test_an_exchange_is_shown_on_a_page_and_a_refusal_in_its_own_sentence(session):
    app, asked, processes = app_asking(session, Doing(2, 4, "layers of A"))
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        screen.show_site(SPOILT)
        await pilot.press("P")
        await until(pilot, lambda: "patch layer 2 qkv_matmul │ 2/4 layers of A" in screen_text(pilot))
        processes[0].say(Refused("x.gguf is gone\x1b[2J; put it back."), None)
        await until(pilot, lambda: "x.gguf is gone\\x1b[2J; put it back." in screen_text(pilot))
        assert (asked[0].kind, asked[0].site) == ("patch", SPOILT)


async def test_the_shipped_fault_is_found_and_followed_down_to_the_bytes(tmp_path):
    session = demo_session("permuted_rope", 3, tmp_path / "demo")
    app = WorkbenchApp(session)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: app.map_screen.phase == "finished")
        await pilot.press("b")
        await until(pilot, lambda: isinstance(app.screen, VerdictScreen))
        assert "DIVERGENT at layer 3 qkv_matmul: permuted_rope (weights)." in screen_text(pilot)
        await pilot.press("escape")
        assert app.map_screen.model.cursor == Site(3, "qkv_matmul")
        await pilot.press("enter")
        await until(pilot, lambda: "largest |d| first" in screen_text(pilot))
        await pilot.press("b")
        await until(pilot, lambda: "equal, bit for bit" in screen_text(pilot))
        assert isinstance(app.screen, PageScreen)
        assert app.screen._text.count("equal, bit for bit") == 2
        assert "dmin" in app.screen._text
        await pilot.press("escape", "p")
        await until(pilot, lambda: "times)" in screen_text(pilot))
    assert last_bisection(Session.open(session.folder)).found.culprit.cause == "permuted_rope"
