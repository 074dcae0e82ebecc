"""The form of a hypothesis: what is typed lands where it is meant to, however fast it comes."""

import pytest
from textual import events
from textual.widgets import Input, TextArea

from kernels.stages import Site
from tests.tui import fakes
from tests.tui.conftest import app_for, screen_text, until, until_filled
from workbench.app.drafts import Draft, Drafts
from workbench.app.pages.note_screen import NoteScreen
from workbench.lab.shelf import shelf_of
from workbench.session.session import Session

KEYS = {"\t": "tab", "\r": "enter", " ": "space", "\x13": "ctrl+s", "\x1b": "escape", "\b": "shift+tab"}


def burst(app, text: str) -> None:
    """Send keys all at once, as a paste or a slow connection does."""
    for letter in text:
        app.post_message(events.Key(KEYS.get(letter, letter), letter if letter.isprintable() else None))


def fields(screen: NoteScreen) -> tuple[str, ...]:
    areas = (screen.query_one(name, TextArea).text for name in ("#claim", "#prediction"))
    return screen.query_one("#title", Input).value, *areas


def words(pilot) -> str:
    return " ".join(screen_text(pilot).replace("│", " ").split())


@pytest.mark.parametrize("end", ["\t", "\r"])
async def test_a_burst_of_keys_fills_the_fields_one_after_the_other_and_is_saved_whole(session, end):
    app, _ = app_for(session)
    title = "a title that takes its field some time " * 3
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await pilot.press("n")
        burst(app, f"a{title}{end}claim\tprediction\b second\x13\x13")
        await until(pilot, lambda: shelf_of(Session.open(session.folder)).hypotheses and app.screen is app.map_screen)
    (written,) = shelf_of(Session.open(session.folder)).hypotheses
    assert (written.title, written.claim, written.prediction) == (title.strip(), "claim second", "prediction")
    assert Drafts(session.folder).get(fakes.FAULTY).empty


async def test_enter_ends_the_title_and_breaks_a_line_elsewhere(session):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await pilot.press("a")
        burst(app, "one\rtwo\rthree\tfour\rfive")
        await until(pilot, lambda: fields(app.screen) == ("one", "two\nthree", "four\nfive"))


async def test_a_burst_that_ends_in_escape_is_a_draft_with_every_letter(session):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await pilot.press("n")
        burst(app, f"a{'t' * 200}\t{'c' * 200}\x1b")
        await until(pilot, lambda: app.screen is app.map_screen and not Drafts(session.folder).get(fakes.FAULTY).empty)
        assert Drafts(session.folder).get(fakes.FAULTY) == Draft("t" * 200, "c" * 200)


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (200, 60)])
async def test_nothing_is_saved_without_a_claim_and_the_cursor_goes_where_it_is_missing(session, size):
    app, _ = app_for(session)
    async with app.run_test(size=size) as pilot:
        await until_filled(pilot)
        await pilot.press("a")
        burst(app, "title\t \r\tprediction\x13")
        await until(pilot, lambda: "there is no claim." in words(pilot))
        assert app.focused.id == "claim"
        assert not shelf_of(session).hypotheses
        burst(app, "it\x13")
        await until(pilot, lambda: app.screen is app.map_screen)
        assert shelf_of(session).hypotheses[0].claim.strip() == "it"


async def test_a_form_that_was_left_empty_keeps_no_draft_and_says_so_of_none(session):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until_filled(pilot)
        await pilot.press("a", "escape")
        assert "draft" not in screen_text(pilot)
        await pilot.press("a", "x", "escape")
        await until(pilot, lambda: "The draft is kept." in screen_text(pilot))


async def test_a_draft_that_cannot_be_written_is_told_and_stops_nothing(session):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until_filled(pilot)
        await pilot.press("a", "x")
        await until(pilot, lambda: (session.folder / "drafts.json").is_file())
        (session.folder / "drafts.json").unlink()
        (session.folder / "drafts.json").mkdir()
        await pilot.press("y")
        await until(pilot, lambda: "cannot be written" in words(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.map_screen)
        assert app.map_screen.model.cursor == Site(None, "embedding")
        assert "The draft is kept." not in screen_text(pilot)
