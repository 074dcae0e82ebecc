"""Going back to the view before."""

from kernels.stages import Site
from tests.tui import fakes
from tests.tui.conftest import app_for, screen_text, until_filled


async def test_u_goes_back_through_what_was_shown(session):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        opened = screen.model.view
        await pilot.press("n", "m", "t", "slash", *"ffn 2-3", "enter", "x")
        assert screen.model.view.filter == "ffn 2-3"
        await pilot.press("u", "u")
        assert screen.model.view.filter == ""
        assert screen.model.view.tokens.kind == "last"
        assert "last token (3)" in screen_text(pilot)
        await pilot.press("u")
        assert (screen.model.view.metric, screen.model.view.tokens.kind) == ("rel_rms", "all")
        assert screen.model.cursor == fakes.FAULTY
        await pilot.press("u", "u")
        assert screen.model.view == opened
        assert "▸embedding" in screen_text(pilot)


async def test_steps_are_no_jumps_but_lead_away_from_the_view_before(session):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await until_filled(pilot)
        await pilot.press("down", "down", "G", "up")
        await pilot.press("u")
        assert screen.model.cursor == Site(0, "qkv_matmul")
        await pilot.press("u")
        assert screen.model.cursor == Site(0, "qkv_matmul")
        assert any("no view before" in notice.message for notice in app._notifications)
