"""A map of more layers than have room for a digit and a sign: smaller cells, and every layer is on the screen."""

import pytest

from kernels.stages import Site
from tests.tui import fakes
from tests.tui.conftest import app_for, screen_text, until, until_filled
from workbench.app.map.small import glyph_of, head, worst
from workbench.app.map.view import STAGE_LABEL, MapView
from workbench.cells.heat import Look


def row(view: MapView, stage: str) -> str:
    lines = (view.render_line(y).text for y in range(view.size.height))
    return next(line for line in lines if line[1:].startswith(f"{stage} "))[STAGE_LABEL + 1 :]


@pytest.mark.parametrize(
    ("size", "layers", "shared"),
    [
        ((200, 60), 80, 1),
        ((200, 60), 126, 1),
        ((120, 40), 80, 1),
        ((120, 40), 126, 2),
        ((80, 24), 80, 2),
        ((80, 24), 126, 3),
        ((60, 20), 32, 1),
    ],
)
async def test_every_layer_has_a_place_and_a_cell_that_is_opened(session, size, layers, shared):
    fakes.write_traces(session, layers)
    app, _ = app_for(session, layers=layers)
    async with app.run_test(size=size) as pilot:
        screen = await until_filled(pilot)
        view = screen.map
        assert view.shared == shared
        assert view.columns_in_view == range(layers)
        assert "more layer" not in screen_text(pilot)
        await pilot.press("n")
        assert screen.model.cursor == fakes.FAULTY
        assert f"{'[' if shared == 1 else ''}!]" in row(view, "ffn_gate")
        await pilot.press("$")
        assert screen.model.cursor == Site(layers - 1, "ffn_gate")
        assert row(view, "ffn_gate").rstrip().endswith("[4]")
        assert view.render_line(0).text.rstrip().endswith(str(layers - 1))
        await pilot.press("enter")
        await until(pilot, lambda: f"layer {layers - 1} ffn_gate │ all 4 tokens" in screen_text(pilot))


@pytest.mark.parametrize("width", [60, 79, 80, 81])
async def test_layers_that_share_a_column_show_the_worst_of_them(session, width):
    app, _ = app_for(session, layers=80)
    async with app.run_test(size=(width, 24)) as pilot:
        screen = await until_filled(pilot)
        view, model = screen.map, screen.model
        for stage in ("attn_norm", "ffn_gate", "ffn_up"):
            looks = [model.look(Site(layer, stage)) for layer in range(80)]
            glyphs = ["!" if look.outside else look.glyph for look in looks]
            groups = [glyphs[n : n + view.shared] for n in range(0, 80, view.shared)]
            assert row(view, stage).rstrip() == "".join(max(group, key=" =01234567!".index) for group in groups)


async def test_the_cursor_shows_its_own_cell_and_covers_nothing_that_stands_out(session):
    app, _ = app_for(session, layers=80)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await until_filled(pilot)
        for layer, shown in ((1, "[=!44"), (2, "=[!]4"), (3, "==!4]")):
            screen.show_site(Site(layer, "ffn_gate"))
            await pilot.pause()
            assert row(screen.map, "ffn_gate").startswith(shown)


async def test_a_click_on_layers_that_share_a_column_goes_to_the_worst_and_another_opens_it(session):
    fakes.write_traces(session, 80)
    app, _ = app_for(session, layers=80)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        place = (STAGE_LABEL + 1 + fakes.FAULTY.layer // screen.map.shared, 11)
        await pilot.click(MapView, offset=place)
        assert screen.model.cursor == fakes.FAULTY
        await pilot.click(MapView, offset=place)
        await until(pilot, lambda: app.screen is not screen)


def test_a_verdict_stands_in_small_cells_by_its_signs_without_any_colour():
    seen = Look("3", "0.001", 3, False)
    assert [glyph_of(seen, sign) for sign in ("✓", "░", "?", "!", "✗", " ")] == ["3", "░", "?", "!", "✗", "3"]
    assert glyph_of(None, " ") == " "
    in_order = [" ", "·", "=", "0", "7", "9", "≠", "░", "?", "!", "✗"]
    for place, glyph in enumerate(in_order):
        assert [worst([glyph, other]) for other in in_order[:place]] == [0] * place
        assert [worst([other, glyph]) for other in in_order[:place]] == [1] * place


def test_numbers_of_layers_stand_above_their_columns_and_never_run_together():
    for each in (1, 2, 3, 7):
        layers = list(range(126))
        for current in layers:
            before, number, behind = head(layers, each, current, 130)
            line = f"{before}{number}{behind}"
            assert number == str(current)
            words = line.split()
            assert str(current) in words
            for word in words:
                if word != number:
                    assert line[int(word) // each :].startswith(word)
