"""The mouse: clicks and the wheel, everywhere; and nothing of it where it was left to the terminal."""

import pytest
from textual import events

from kernels.stages import Site
from tests.tui import fakes
from tests.tui.conftest import app_for, screen_text, until, until_filled
from workbench.__main__ import run
from workbench.app.cell.screen import CellScreen
from workbench.app.map.view import MapView
from workbench.app.pages.config_screen import ConfigScreen
from workbench.app.pages.help_screen import HelpScreen
from workbench.app.pages.line_list import LineList


async def wheel(pilot, widget, down: bool = True) -> None:
    kind = events.MouseScrollDown if down else events.MouseScrollUp
    region = widget.region
    x, y = region.x + 5, region.y + 5
    places = {"x": x, "y": y, "delta_x": 0, "delta_y": 1 if down else -1, "screen_x": x, "screen_y": y}
    event = kind(widget, button=0, shift=False, meta=False, ctrl=False, **places)
    pilot.app.screen._forward_event(event)
    await pilot.pause()


async def test_a_click_moves_to_a_cell_and_another_opens_it(session):
    fakes.write_traces(session)
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        text = screen_text(pilot).splitlines()
        y = next(number for number, line in enumerate(text) if "ffn_up" in line)
        x = text[y].index("4")
        await pilot.click(offset=(x, y))
        assert screen.model.cursor == Site(2, "ffn_up")
        await pilot.click(offset=(x, y))
        await until(pilot, lambda: isinstance(app.screen, CellScreen))


async def test_the_footer_and_the_lines_of_a_list_can_be_clicked(session):
    app, _ = app_for(session)
    async with app.run_test(size=(120, 24)) as pilot:
        screen = await until_filled(pilot)
        before, line = screen.model.metric, screen_text(pilot).splitlines()[-1]
        await pilot.click(offset=(line.index("m Metric"), 23))
        await until(pilot, lambda: screen.model.metric is not before)
        await pilot.press("c")
        await until(pilot, lambda: isinstance(app.screen, ConfigScreen) and app.screen.is_mounted)
        view = app.screen.query_one(LineList)
        await pilot.click(LineList, offset=(5, 6))
        assert view.cursor == 5


async def test_the_wheel_scrolls_lists_help_and_a_map_that_is_larger_than_the_screen(session):
    app, _ = app_for(session, layers=60)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        await pilot.press("x") if screen.query_one(MapView).stage_rows else None
        await until(pilot, lambda: not screen.query_one(MapView).stage_rows)
        await wheel(pilot, screen.query_one(MapView))
        assert screen.query_one(MapView).scroll_y > 0
        await pilot.press("c")
        view = app.screen.query_one(LineList)
        await wheel(pilot, view)
        assert view.scroll_y > 0
        await wheel(pilot, view, down=False)
        assert view.scroll_y == 0
        await pilot.press("escape", "question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        lines = app.screen.query_one(LineList)
        await wheel(pilot, lines)
        assert lines.scroll_y > 0


@pytest.mark.parametrize("mouse", [True, False])
@pytest.mark.parametrize("command", ["open", "demo"])
def test_the_mouse_may_be_left_to_the_terminal(command, mouse, monkeypatch, tmp_path):
    told = {}
    monkeypatch.setattr("workbench.cli.headless.terminal.is_there", lambda: True)
    monkeypatch.setattr("workbench.app.app.WorkbenchApp.run", lambda _, mouse: told.update(mouse=mouse))
    session = fakes.new_session(tmp_path / "s")
    arguments = [str(session.folder)] if command == "open" else ["--session", str(tmp_path / "demo")]
    run(
        [command, *arguments, *([] if mouse else ["--no-mouse"])]
    )  # 2: nothing is captured without a terminal to run in
    assert told == {"mouse": mouse}
