"""What stands below the map: curves that show gaps as gaps, and what was done, while keys stay quick."""

import math

import pytest

from kernels.stages import Site
from tests.tui import fakes
from tests.tui.conftest import app_for, screen_text, until, until_filled
from tests.tui.test_colours import checked
from workbench.app.map.bars import Scale, Series, bars, widened
from workbench.app.map.below import Below
from workbench.app.map.timeline import lines
from workbench.capture.job import CellReady, Finished, SideReady
from workbench.cells.cell import Cell


def test_what_was_not_measured_is_a_gap_and_nothing_is_not_a_gap():
    assert bars(Series("", (None, 0.0, 1.0, 10.0, 100.0, math.inf, math.nan)), 1) == [" =▁▅███"]


def test_the_limit_is_a_line_that_only_what_is_beyond_it_crosses():
    drawn = bars(Series("", (1.0, None, 300.0, 0.0), limit=8.0), 4)
    assert drawn == ["  █ ", "  █ ", "──█─", "▁ █="]
    assert widened(drawn[2], 3) == "──────██────"


@pytest.mark.parametrize("values", [(5e-324, 1e308), (1.0,), (None,), (0.0,), (3.0, 3.0)])
def test_a_scale_holds_whatever_figures_there_are(values):
    series = Series("", values)
    scale = Scale.of(series)
    assert 0 < scale.low < scale.high
    assert [len(line) for line in bars(series, 3)] == [len(values)] * 3


def below(pilot) -> list[str]:
    """Lines below the map, in its columns."""
    shown = pilot.app.map_screen.query_one(Below).region
    return [line[: shown.width].rstrip() for line in screen_text(pilot).splitlines()[shown.y : shown.bottom]]


async def test_the_curve_follows_the_stage_under_the_cursor(session):
    app, _ = app_for(session)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await until_filled(pilot)
        await pilot.press("n", "m")
        await until(pilot, lambda: "ffn_gate over the layers, relative RMS (log)" in screen_text(pilot))
        text = "\n".join(below(pilot))
        assert "limit 0.5 ┤" in text
        assert "layer_output, relative RMS as observed (log)" in text
        assert "layer 2 ffn_gate over tokens 0-3, relative RMS as observed" in text
        width = screen.map.cell_width
        here = screen.map.gutter_width + 1 + 2 * width + (width - 1) // 2
        assert any(line[here : here + 1] == "▲" for line in below(pilot))
        await pilot.press("down")
        await until(pilot, lambda: "ffn_up over the layers" in screen_text(pilot))
        await pilot.press("G")
        await until(pilot, lambda: "over the layers" not in screen_text(pilot))


async def test_the_curve_in_multiples_of_rounding_has_gaps_where_nothing_was_run_again(session):
    app, _ = app_for(session)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await until_filled(pilot)
        screen.model.viewed = True
        for site, times in ((Site(0, "ffn_gate"), 1.0), (Site(2, "ffn_gate"), 300.0)):
            screen.take_checked(checked(site, times))
        screen.show_site(Site(2, "ffn_gate"))
        await pilot.press("i", "i", "i", "i")
        await until(pilot, lambda: "over the layers, error / what rounding can cause (log)" in screen_text(pilot))
        lowest = next(line for line in below(pilot) if line.strip().startswith("1 ┤"))
        width = screen.map.cell_width
        assert lowest.partition("┤")[2] == "▁" * (width - 1) + " " * (width + 1) + "█" * (width - 1)
        assert any(line.strip().startswith("limit 8 ┤") for line in below(pilot))


async def test_cells_that_are_not_there_are_gaps(session):
    hole = Site(1, "ffn_gate")
    cells = [Cell(hole, "unmeasured", "not captured") if c.site == hole else c for c in fakes.cells()]
    runs = [SideReady("a", fakes.run_record()), SideReady("b", fakes.run_record("b.apr"))]
    app, _ = app_for(session, *runs, *map(CellReady, cells), Finished(1.0), None)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await until_filled(pilot)
        await pilot.press("m")
        screen.show_site(Site(2, "ffn_gate"))
        await until(pilot, lambda: "ffn_gate over the layers, relative RMS (log)" in screen_text(pilot))
        lowest = next(line for line in below(pilot) if "=" in line)
        width = screen.map.cell_width
        assert lowest.partition("┤")[2].startswith("=" * (width - 1) + " " * (width + 1) + "█")


async def test_what_was_done_grows_while_the_app_runs_newest_last(session):
    session.log("compared", cells={"ok": 66, "identical": 1}, tokens=[1, 2, 3, 4])
    app, _ = app_for(session)
    async with app.run_test(size=(120, 40)) as pilot:
        await until_filled(pilot)
        await until(pilot, lambda: "compared 67 cells over 4 tokens" in screen_text(pilot))
        session.log("exported", report="findings.md")
        await until(pilot, lambda: "exported findings.md" in screen_text(pilot))
        done = "\n".join(below(pilot)).partition("What was done (UTC)")[2]
        assert done.index("compared") < done.index("exported")


def test_no_entry_of_a_log_breaks_the_list_or_the_terminal():
    hostile = [
        {"time": "2026-01-02T03:04:05.000+00:00", "kind": "exported", "report": "a\x1b[2J.md"},
        {"time": 7, "kind": "compared", "cells": None},
        {"kind": ["list"]},
        {"kind": "patched", "kl_left": "x", "kl": {}, "part": []},
        {"kind": "hypothesis", "number": 1, "title": "[b]t[/b]", "site": [3, "ffn_up"]},
        {},
    ]
    said = lines(hostile)
    assert said[0] == "01-02 03:04  exported a\\x1b[2J.md"
    assert said[4].endswith("hypothesis 1 at layer 3 ffn_up: [b]t[/b]")
    assert len(said) == len(hostile)


async def test_no_key_waits_for_what_is_below_the_map(session, monkeypatch):
    app, _ = app_for(session, layers=24)
    async with app.run_test(size=(200, 60)) as pilot:
        screen = await until_filled(pilot)
        await pilot.press("n")
        drawn = []
        monkeypatch.setattr(Below, "show", lambda self: drawn.append(self.model.cursor))
        screen.action_move(1, 0)
        screen.action_cycle_metric(1)
        assert drawn == []
        await until(pilot, lambda: bool(drawn))


async def test_a_low_terminal_has_the_map_alone(session):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        await pilot.press("n")
        assert screen.query_one(Below).size.height <= 1
        assert "over the layers" not in screen_text(pilot)
        await pilot.resize_terminal(80, 50)
        await until(pilot, lambda: "ffn_gate over the layers" in screen_text(pilot))
