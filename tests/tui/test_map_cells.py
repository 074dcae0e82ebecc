"""What stands in the cells of the map: whole cells only, and a mark whatever is over it."""

from kernels.measures import OTHER_SIGN
from kernels.stages import Site
from tests.tui import fakes
from tests.tui.conftest import app_for, screen_text, until, until_filled
from workbench.app.map.view import STAGE_LABEL, MapView
from workbench.capture.job import CellReady, Finished
from workbench.cells.metrics import METRICS
from workbench.cells.view import View


def row(view: MapView, stage: str) -> str:
    lines = (view.render_line(y).text for y in range(view.size.height))
    return next(line for line in lines if line[1:].startswith(f"{stage} "))[STAGE_LABEL:]


async def test_the_cursor_leaves_the_mark_of_its_cell_and_of_its_neighbours(session):
    app, _ = app_for(session, layers=28)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        view = screen.query_one(MapView)
        assert view.cell_width == 2
        for layer, shown in ((1, "[=]7!"), (2, "[7!"), (3, "7[4]")):
            screen.show_site(Site(layer, "ffn_gate"))
            await pilot.pause()
            assert shown in row(view, "ffn_gate")


async def test_words_that_stand_for_a_figure_are_no_wider_than_it(tmp_path):
    site = Site(1, "ffn_up")
    flipped = fakes.cell(site, -2.0)
    assert METRICS["max_ulp"].text(flipped.measures()) == OTHER_SIGN
    session = fakes.new_session(tmp_path / "pair", **View(metric="max_ulp").to_json())
    app, capture = app_for(session, *fakes.whole_capture()[:-2])
    capture.say(CellReady(flipped), Finished(1.0), None)
    async with app.run_test(size=(160, 40)) as pilot:
        screen = await until_filled(pilot)
        view = screen.query_one(MapView)
        assert view.cell_width == 10
        assert row(view, "ffn_up").split()[:2] == ["=", "7"]
        assert len(row(view, "ffn_up").rstrip()) == len(row(view, "ffn_silu").rstrip())
        screen.show_site(site)
        await until(pilot, lambda: f"max ULP {OTHER_SIGN}" in " ".join(screen_text(pilot).split()))
