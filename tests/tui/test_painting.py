"""What is written to the terminal is what the terminal does not show yet, and then it shows what Textual painted."""

import random
import re

import pytest
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

from tests.tui.conftest import app_for, until_filled
from workbench.app.painting import Shown

WIDTH, HEIGHT = 30, 4
CONSOLE = Console(color_system="truecolor", force_terminal=True, width=WIDTH, height=HEIGHT, legacy_windows=False)
STYLES = [Style(color="#ff0000"), Style(bgcolor="#0000ff", bold=True), Style()]
WORDS = ["layer ", "0.031 ", "0.037 ", "≠ ▸│ ", "日本", "e\u0301"]
TOKEN = re.compile(r"\x1b\[(\d+);(\d+)H|(\x1b\[[\d;]*m)|(\n)|(.)")


class Terminal:
    """As much of a terminal as paintings need; a character of two columns takes them with one of none behind it."""

    def __init__(self) -> None:
        self.cells = {}

    def write(self, text: str) -> None:
        x, y, style = 0, 0, ""
        for row, column, attributes, newline, character in TOKEN.findall(text):
            if row:
                x, y = int(column) - 1, int(row) - 1
            elif attributes:
                style = "" if attributes == "\x1b[0m" else attributes
            elif not newline and character != "\u0301":
                self.cells[y, x] = character, style
                if character in "日本":
                    self.cells[y, x + 1] = "", style
                    x += 1
                x += 1
            elif character:
                self.cells[y, x - 1] = self.cells[y, x - 1][0] + character, style


def strip(rng: random.Random, width: int) -> Strip:
    segments = [Segment(rng.choice(WORDS), rng.choice(STYLES)) for _ in range(rng.randrange(1, 5))]
    return Strip(segments).adjust_cell_length(width, STYLES[0])


def updates(rng: random.Random):
    """Whole screens and parts of them, as the compositor makes them; a line has its widgets cut somewhere."""
    while True:
        cut = rng.randrange(5, WIDTH - 5)
        chops = [{0: strip(rng, cut), cut: strip(rng, WIDTH - cut)} for _ in range(HEIGHT)]
        if rng.random() < 0.3:
            yield LayoutUpdate([line.values() for line in chops], Region(0, 0, WIDTH, HEIGHT))
        else:
            spans = sorted((y, *rng.choice([(0, cut), (cut, WIDTH), (0, WIDTH)])) for y in rng.sample(range(HEIGHT), 2))
            yield ChopsUpdate(chops, spans, [[cut, WIDTH]] * HEIGHT)


@pytest.mark.parametrize("seed", range(20))
def test_the_terminal_shows_what_was_painted(seed):
    rng, shown, plain, sparing = random.Random(seed), Shown(), Terminal(), Terminal()
    for update, _ in zip(updates(rng), range(40), strict=False):
        plain.write(update.render_segments(CONSOLE))
        sparing.write(shown.change(update, CONSOLE))
        assert sparing.cells == plain.cells
        assert shown.change(update, CONSOLE) == ""
        if rng.random() < 0.1:
            sparing.cells.clear()
            plain.cells.clear()
            shown.forget()


def test_of_a_changed_figure_its_digits_are_written():
    shown = Shown()
    for figure in ("0.0312", "0.0317"):
        line = Strip([Segment(f"relative RMS {figure}", STYLES[0])]).adjust_cell_length(WIDTH, STYLES[0])
        written = shown.change(LayoutUpdate([[line]], Region(0, 0, WIDTH, 1)), CONSOLE)
    assert TOKEN.sub(r"\5", written) == "7"
    assert len(written) < 40


async def test_a_terminal_of_another_size_is_painted_whole(session):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)

        def painted() -> str:
            return app._shown.change(screen._compositor.render_update(full=True), app.console)

        assert len(painted()) > 80 * 23
        assert painted() == ""
        await pilot.resize_terminal(90, 24)
        await pilot.resize_terminal(80, 24)
        assert len(painted()) > 80 * 23
