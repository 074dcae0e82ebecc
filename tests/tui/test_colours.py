"""The colours of the map: what is wrong stands out on every theme and terminal, and never by its colour alone."""

import pytest
from rich.color import Color, ColorSystem
from rich.segment import Segment

from kernels.stages import Site
from tests.tui.conftest import app_for, screen_text, until, until_filled
from workbench.app.map.colours import heat_styles
from workbench.app.map.view import MapView
from workbench.cells.decomposition import Checked, Decomposition

TIMES = {Site(layer, "ffn_up"): times for layer, times in enumerate((0.0, 0.4, 3.2, 7.9))}
WRONG = Site(2, "ffn_gate")


def lightness(colour: Color) -> float:
    red, green, blue = colour.get_truecolor()
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("system", [ColorSystem.TRUECOLOR, ColorSystem.EIGHT_BIT, ColorSystem.STANDARD])
@pytest.mark.parametrize("dark", [True, False])
def test_every_terminal_keeps_the_order_of_the_levels(dark, system):
    styles = heat_styles(dark, few=system == ColorSystem.STANDARD)
    shown = [lightness(style.bgcolor.downgrade(system)) for style in styles]
    assert shown == sorted(shown, reverse=not dark)
    assert abs(shown[-1] - shown[0]) > 150
    for style in styles:  # what stands on it can be read
        assert abs(lightness(style.color.downgrade(system)) - lightness(style.bgcolor.downgrade(system))) > 90


def checked(site: Site, times: float) -> Checked:
    return Checked(Decomposition(site, 0.6, times * 0.01, 0.1, 0.01, 1.0, 1.0), 1.0, times > 8)


def painted(view: MapView, stage: str) -> list[Segment]:
    """The cells of a row, each with the style of its end."""
    rows = (view.render_line(y) for y in range(view.size.height))
    row = next(strip for strip in rows if strip.text[1:].startswith(f"{stage} "))
    styles = [segment.style for segment in row for _ in segment.text]
    first, width = view.gutter_width + 1, view.cell_width
    starts = range(first, first + 4 * width, width)
    return [Segment(row.text[start : start + width], styles[start + width - 1]) for start in starts]


@pytest.mark.parametrize(("theme", "dark"), [("textual-dark", True), ("textual-light", False)])
async def test_of_what_rounding_can_cause_only_the_wrong_cell_stands_out(session, theme, dark, monkeypatch):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        app.console._color_system = ColorSystem.TRUECOLOR
        screen.model.viewed = True
        for site, times in (TIMES | {WRONG: 300.0}).items():
            screen.take_checked(checked(site, times))
        await pilot.press("i", "i", "i", "i")
        app.theme = theme
        await until(pilot, lambda: app.current_theme.dark == dark and not screen._changed)
        await pilot.pause()
        assert "0-8 times what rounding can cause, 9 more" in str(screen.query_one("#legend").render())
        right, wrong = painted(screen.map, "ffn_up"), painted(screen.map, "ffn_gate")[2]
        assert [cell.text.strip() for cell in right] == ["=", "0.4", "3.2", "7.9"]
        assert wrong.text.strip() == "300!"
        levels = [lightness(cell.style.bgcolor) for cell in (*right, wrong)]
        assert levels == sorted(levels, reverse=not dark)
        background = 18.0 if dark else 224.0
        assert abs(levels[0] - background) < 40
        assert abs(levels[-1] - levels[3]) > 80


async def test_without_colours_verdict_and_cursor_are_signs(session, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await pilot.press("n")
        assert app.no_color
        row = next(line for line in screen_text(pilot).splitlines() if line.startswith("▸ffn_gate"))
        assert "[7!" in row
        assert "OUT OF BAND" in screen_text(pilot)
