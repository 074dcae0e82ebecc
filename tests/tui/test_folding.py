"""Layers that look alike are taken together, and the cursor is never lost."""

import pytest

from kernels.stages import Site
from tests.tui import fakes
from tests.tui.conftest import app_for, screen_text, until, until_filled
from workbench.app.map.folding import folded, span_words


def test_runs_of_layers_that_look_alike_become_one():
    looks = "aabbba"
    assert folded(range(6), looks.__getitem__, 3) == ([0, 3, 5], {0: (0, 1), 3: (2, 4), 5: (5, 5)})
    assert [span_words(run, 5) for run in ((0, 1), (5, 5), (12, 17))] == ["0-1", "5", "12-17"]
    assert span_words((12, 17), 3) == "12+"


@pytest.mark.parametrize(("size", "layers"), [((200, 60), 80), ((120, 40), 24), ((80, 24), 80)])
async def test_z_folds_what_is_alike_and_shows_it_again(session, size, layers):
    app, _ = app_for(session, layers=layers)
    async with app.run_test(size=size) as pilot:
        screen = await until_filled(pilot)
        await pilot.press("n", "z")
        assert screen.model.cursor == fakes.FAULTY
        assert screen.model.layer_axis == [0, 2, 3]
        assert f"3-{layers - 1}" in screen_text(pilot)
        assert f"{layers} layers in 3" in screen_text(pilot)
        assert "▸" in screen_text(pilot)
        deep = Site(layers - 3, "ffn_up")
        screen.show_site(deep)
        await until(pilot, lambda: f"layer {layers - 3} ffn_up" in screen_text(pilot))
        assert screen.model.cursor == deep
        assert screen.model.layer_axis == [0, 2, layers - 3]
        stage_rows = screen.map.stage_rows
        await pilot.press("left" if stage_rows else "up")
        assert screen.model.cursor == Site(2, "ffn_up")
        await pilot.press("right" if stage_rows else "down", "z")
        assert screen.model.cursor == deep
        assert len(screen.model.layer_axis) == layers


async def test_another_metric_folds_by_what_it_shows(session):
    app, _ = app_for(session, layers=6)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await until_filled(pilot)
        await pilot.press("z")
        assert screen.model.layer_axis == [0, 2, 3]
        await pilot.press("slash", *"norm", "enter")
        assert screen.model.layer_axis == [0, 3]
        await pilot.press("u")
        assert screen.model.layer_axis == [0, 2, 3]
