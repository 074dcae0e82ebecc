"""Lists and pages: what is too wide is cut with a mark and moves sideways, and no key of a burst is lost."""

import numpy as np
import pytest
from textual import events

from kernels.stages import Site
from tests.tui import fakes
from tests.tui.conftest import app_for, screen_text, until, until_filled
from workbench.app.cell.screen import CellScreen
from workbench.app.pages.line_list import CUT
from workbench.app.pages.page_screen import PageScreen
from workbench.cells.elements import Elements


def listed(pilot) -> list[str]:
    """The lines of the list on screen, its head first."""
    view = pilot.app.screen.list
    return [view.render_line(y).text[: view.scrollable_content_region.width] for y in range(view.size.height)]


def of_heads() -> CellScreen:
    """Elements of every kind of distance: the widest figures that there are."""
    b = np.float32([[-1.234567e-05] * 24] * 4)
    a = -b * np.float32(2.345678)
    a[1, :2], b[1, :2] = np.float32(3.4028235e38), np.float32(-0.0)
    a[2, 0], b[2, 1], a[2, 2] = np.nan, np.inf, -np.inf
    elements = Elements(a, b, (0, 1, 2, 99_999))
    return CellScreen(Site(1, "qkv_bias"), "all 4 tokens", lambda: elements, fakes.config(), str)


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40), (200, 60)])
async def test_every_figure_of_an_element_is_whole_at_80_columns_and_below_that_one_key_away(session, size):
    app, _ = app_for(session)
    async with app.run_test(size=size) as pilot:
        await until_filled(pilot)
        await app.push_screen(of_heads())
        await until(pilot, lambda: "largest |d| first" in screen_text(pilot) or size[0] < 80)
        if size[0] < 80:
            assert all(line.rstrip().endswith(CUT) for line in listed(pilot)[:3])
            await pilot.press("l", "l", "right", "right", "right", "right")
        lines = listed(pilot)
        assert lines[0].rstrip().endswith("ULP")
        shown = [line.split() for line in lines[1:] if line.strip()]
        assert any(line[-1] == "2139095039" for line in shown)
        assert any(line[-2:] == ["other", "sign"] for line in shown) or size[0] < 80
        assert CUT not in "".join(line[2:] for line in lines) or size[0] < 80
        await pilot.press(*"hhhhhh")
        assert listed(pilot)[0].startswith("  token chan. head")


async def test_a_list_moves_no_further_than_its_longest_line_and_keeps_every_column(session):
    app, _ = app_for(session)
    async with app.run_test(size=(60, 20)) as pilot:
        await until_filled(pilot)
        await app.push_screen(of_heads())
        await until(pilot, lambda: app.screen.list.count)
        whole = app.screen.list._text(0)
        seen = set()
        for _ in range(9):
            left = app.screen.list.left
            line = listed(pilot)[1][2:]
            seen |= {left + n for n, letter in enumerate(line) if letter != CUT and whole[left + n :][:1] == letter}
            await pilot.press("l")
        assert seen == set(range(len(whole)))
        await pilot.resize_terminal(120, 40)
        await until(pilot, lambda: app.screen.list.left == 0)
        assert listed(pilot)[1][2:].rstrip() == whole


TABLE = """bytes of a row
   path ggml, activations rounded to 8 bits (ggml Q8_K), blocks: 1, in tiny-qwen2-q4_k_m.gguf
   stored      -7.33961487      c0eade20   equal, bit for bit, whatever else is said of it
   0 w  13   4   8  10   9   5   9   7   9   3  12  11  15   5   6   1
note       a sentence that is longer than the narrow terminal and is therefore wrapped by it"""


@pytest.mark.parametrize("width", [40, 60, 100])
async def test_a_page_wraps_sentences_and_cuts_the_rows_of_tables(session, width):
    app, _ = app_for(session)
    async with app.run_test(size=(width, 24)) as pilot:
        await until(pilot, lambda: app.map_screen.phase == "finished")
        await app.push_screen(PageScreen("bytes", TABLE))
        await until(pilot, lambda: app.screen.list.count)
        lines = [line[2:].rstrip() for line in listed(pilot)]
        row = next(line for line in lines if line.startswith("   0 w"))
        assert row == TABLE.splitlines()[3] if width > 71 else row.endswith(CUT)
        text = " ".join(" ".join(lines).split())
        assert "wrapped by it" in text
        assert "in tiny-qwen2-q4_k_m.gguf" in text
        while app.screen.list.left < 72 - width:
            await pilot.press("right")
        assert any(line.rstrip().endswith("5   6   1") for line in listed(pilot))


@pytest.mark.parametrize(("keys", "filtered"), [("/ffn 1-2\r", "ffn 1-2"), ("/3\r", "3")])
async def test_a_filter_typed_in_one_burst_is_the_filter(session, keys, filtered):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        for key in keys:
            name = {"/": "slash", " ": "space", "\r": "enter", "-": "minus"}.get(key, key)
            app.post_message(events.Key(name, key if key.isprintable() else None))
        await until(pilot, lambda: app.map_screen.model.view.filter == filtered)
        assert app.screen is app.map_screen
