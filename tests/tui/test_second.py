"""Two maps of the same cells beside one another, with one cursor."""

from kernels.stages import Site
from tests.memory_model import spine
from tests.tui.conftest import app_for, screen_text, until, until_filled
from tests.tui.test_colours import checked
from workbench.app.map.second import SecondMap


async def test_2_shows_the_metric_beside_what_rounding_can_cause(session):
    app, _ = app_for(session, layers=24)
    async with app.run_test(size=(200, 60)) as pilot:
        screen = await until_filled(pilot)
        for site in spine(24):
            screen.take_checked(checked(site, 300.0 if site == Site(2, "ffn_gate") else 2.0))
        await pilot.press("n", "2")
        second = screen.query_one(SecondMap)
        await until(pilot, lambda: second.size.width > 60)
        assert second.region.x >= screen.map.region.right
        assert "beside it error / what rounding can cause" in screen_text(pilot).splitlines()[1]
        assert "beside: 0-8 times" in screen_text(pilot)
        line = next(line for line in screen_text(pilot).splitlines() if line.startswith("▸ffn_gate"))
        one, other = line[: second.region.x], line[second.region.x : second.region.right]
        assert "[7!" in one
        assert "[9" in other
        assert "2" in other
        await pilot.press("right", "down")
        assert sum("▸ffn_up" in line[x:] for line in screen_text(pilot).splitlines() for x in (0, 20)) == 2
        place = (second.gutter_width + 2 + 9 * second.cell_width, 3)
        await pilot.click(SecondMap, offset=place)
        assert screen.model.cursor == Site(9, "qkv_matmul")
        await pilot.press("i", "i", "i", "i")
        assert "beside it std ratio A/B" in screen_text(pilot).splitlines()[1]
        await pilot.press("2")
        await until(pilot, lambda: second.size.width == 0 or not second.display)
        assert "beside" not in screen_text(pilot)


async def test_two_maps_that_do_not_fit_are_refused_in_a_sentence(session):
    app, _ = app_for(session, layers=80)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await until_filled(pilot)
        await pilot.press("2")
        assert any("do not fit" in notice.message for notice in app._notifications)
        await pilot.press("z", "2")
        assert screen.two
        await pilot.resize_terminal(60, 24)
        assert "▸" in screen_text(pilot)
