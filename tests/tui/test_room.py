"""What fits on the map, and what it says of what does not."""

import pytest

from kernels.stages import Site
from tests.tui import fakes
from tests.tui.conftest import app_for, screen_text, until_filled
from workbench.app.map.cell_text import cell_text, short, with_cursor
from workbench.cells.heat import Look


@pytest.mark.parametrize(
    ("text", "columns", "shown"),
    [
        ("0.004578", 8, "0.004578"),
        ("0.004578", 7, ".004578"),
        ("0.0312", 4, ".031"),
        ("3.1e-07", 5, "3e-7"),
        ("3.1e-07", 3, "e-7"),
        ("1.5e-12", 3, "~0"),
        ("506.1", 3, "506"),
        ("1.001", 3, "1.0"),
        ("1.2e+10", 4, "1e10"),
        ("-0.0312", 4, "-.03"),
        ("other sign", 3, ""),
        ("nan", 3, "nan"),
    ],
)
def test_a_figure_has_as_many_digits_as_fit(text, columns, shown):
    assert short(text, columns) == shown
    assert len(shown) <= columns


@pytest.mark.parametrize("width", [2, 3, 4, 5, 6, 10])
def test_a_cell_and_the_cursor_on_it_take_their_columns_and_keep_the_sign(width):
    text = cell_text(Look("7", "506.1", 7, True), "!", width)
    assert len(text) == width
    with_it = with_cursor(text)
    assert with_it.startswith("[")
    assert "!" in with_it
    assert len(with_it) == max(width, 3)


async def test_more_layers_than_rows_are_said_at_the_edge(session):
    app, _ = app_for(session, layers=80)
    async with app.run_test(size=(200, 60)) as pilot:
        screen = await until_filled(pilot)
        await pilot.press("x")
        shown = screen.map.size.height - 3  # two lines of heads and what is said
        assert f"↓ {80 - shown} more layers" in screen_text(pilot)
        screen.show_site(Site(60, "ffn_gate"))
        await pilot.pause()
        before = round(screen.map.scroll_y)
        assert before > 0
        assert f"↑ {before} more layer" in screen_text(pilot)
        await pilot.press("G")
        assert screen.model.cursor.layer == 79
        assert "▸ 79" in screen_text(pilot)
        assert "↓" not in screen.map.render_line(screen.map.size.height - 1).text


@pytest.mark.parametrize("width", [60, 79, 80, 81])
async def test_only_whole_cells_are_shown_and_what_is_beyond_them_is_counted(tmp_path, width):
    app, _ = app_for(fakes.new_session(tmp_path / "pair", transposed=False), layers=80)
    async with app.run_test(size=(width, 24)) as pilot:
        screen = await until_filled(pilot)
        view, stages = screen.map, len(screen.model.stage_axis)
        screen.show_site(Site(40, "attn_norm"))
        for _ in range(16):
            await pilot.pause()
            shown = view.columns_in_view
            head, foot = (view.render_line(y).text for y in (0, view.size.height - 1))
            assert len(head.split()) == len(shown)
            row = next(line for y in range(24) if (line := view.render_line(y).text).startswith("▸ 40"))
            assert row.count("4") == len(shown) - sum(n in (0, stages - 2, stages - 1) for n in shown) + 1  # and of 40
            beyond = {"←": shown.start, "→": stages - shown.stop}
            for arrow, count in beyond.items():
                assert (f"{arrow} {count} more stage" in foot) == (count > 0)
            screen.action_move(0, 1)


async def test_a_terminal_changes_its_size_at_any_time(session):
    app, _ = app_for(session, layers=24)
    async with app.run_test(size=(200, 60)) as pilot:
        screen = await until_filled(pilot)
        await pilot.press("n")
        for size in ((80, 24), (120, 40), (60, 20), (200, 60), (300, 100)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            assert screen.model.cursor == fakes.FAULTY
            assert "▸ffn_gate" in screen_text(pilot)
            assert all(len(line) == size[0] for line in screen_text(pilot).splitlines())
