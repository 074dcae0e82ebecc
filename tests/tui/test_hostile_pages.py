"""Pages under everything at once: any size, resized while open, keys in bursts, values and names of the worst kind."""

import dataclasses
import itertools

import numpy as np
import pytest
from textual import events

from kernels.stages import Site
from tests.tui import fakes
from tests.tui.conftest import app_for, screen_text, until, until_filled
from workbench.app.cell.evidence import Section
from workbench.app.cell.screen import CellScreen
from workbench.app.pages.config_screen import ConfigScreen
from workbench.app.pages.hypotheses_screen import HypothesesScreen
from workbench.app.pages.note_screen import NoteScreen
from workbench.app.pages.page_screen import EvidenceScreen, PageScreen
from workbench.cells.elements import ORDERS, Elements
from workbench.lab.hypothesis import Hypothesis
from workbench.lab.shelf import keep

SIZES = [(60, 20), (200, 60), (40, 12), (20, 5), (120, 40), (1, 1), (80, 24)]
NASTY = "[red]n[/red]\x1b[2J\x9b31m\r\n\u202e名前\ud800" + "x" * 300
F = np.float32
VALUES = {
    "one element": (F([[1.0]]), F([[-1.0]])),
    "one token": (F([[1, 2, 3, np.nan]]), F([[1, 2, 4, np.inf]])),
    "all lost": (F([[np.nan] * 5] * 3), F([[np.inf] * 5] * 3)),
    "alike": (F([[0.0] * 5] * 3), F([[0.0] * 5] * 3)),
    "huge": (F([[3.4e38, -3.4e38]] * 3), F([[-3.4e38, 3.4e38]] * 3)),
    "tiny": (F([[1e-45, -1e-45]] * 3), F([[0.0, 1e-45]] * 3)),
    "wide": (F(np.arange(9000).reshape(1, -1)), F(np.zeros((1, 9000)))),
    "long": (F(np.arange(9000).reshape(-1, 1)), F(np.zeros((9000, 1)))),
}


async def squeeze(pilot, keys: str) -> None:
    """Through all sizes, a burst of keys at each; every line is as wide as the terminal, and nothing acts on it."""
    for width, height in SIZES:
        await pilot.resize_terminal(width, height)
        for key in keys:
            pilot.app.post_message(events.Key(key, key))
        await pilot.pause()
        strips = pilot.app.screen._compositor.render_strips()
        assert [strip.cell_length for strip in strips] == [width] * height
        assert all(strip.text.isprintable() for strip in strips)


@pytest.mark.parametrize(("kind", "site"), zip(VALUES, itertools.cycle((Site(1, "qkv_bias"), Site(None, "lm_head")))))
async def test_elements_of_any_kind_are_shown_at_any_size(session, kind, site):
    a, b = VALUES[kind]
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        elements = Elements(a, b, tuple(range(len(a))))
        page = CellScreen(site, "all tokens", lambda: elements, fakes.config(), str)
        await app.push_screen(page)
        await squeeze(pilot, "Gkjhhllsssg")
        assert page.order == list(ORDERS)[3 * len(SIZES) % len(ORDERS)]  # no s of a burst is lost
        await until(pilot, lambda: "in index order" in screen_text(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.map_screen)


async def test_pages_of_words_are_shown_at_any_size(session):
    nasty = {"x\x1b[2J[b]": NASTY, "y": "a" * 500}
    a, b = fakes.run_record(NASTY, settings=nasty), fakes.run_record("b", settings={}, prompt=NASTY)
    b = dataclasses.replace(b, versions={NASTY: NASTY}, tokens=())
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        for page in (
            ConfigScreen(a, b),
            PageScreen("t", f"{NASTY}\n   a  b  c  {NASTY}\n\n{'word ' * 400}"),
            PageScreen("t"),
            PageScreen("t", " \n \n"),
            EvidenceScreen(
                (Section("WHY", (NASTY, "of many words " * 40)), Section("WHERE", ())), f"{NASTY}\n\n{NASTY}"
            ),
        ):
            await app.push_screen(page)
            await squeeze(pilot, "Gkjlllhg")
            await pilot.press("l", "G", "escape")
            await until(pilot, lambda: app.screen is app.map_screen)


async def test_hypotheses_and_their_form_are_shown_at_any_size(session):
    for number in range(30):
        claim = f"claim {number} " + "of many words " * 40
        keep(session, Hypothesis(f"[b]{number}\x1b[2J", Site(2, "ffn_gate"), claim, 'config("a", "rms_norm_eps") == 1'))
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await pilot.press("H")
        assert isinstance(app.screen, HypothesesScreen)
        await squeeze(pilot, "Gkjlllhg")
        await pilot.press("escape", "a")
        assert isinstance(app.screen, NoteScreen)
        await squeeze(pilot, "abc")
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.map_screen)
