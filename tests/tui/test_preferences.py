"""The file of preferences: obeyed, or refused with the line and what was meant; and the theme that is kept in it."""

import json
import tomllib

import jsonschema
import pytest

from kernels.errors import WorkbenchError
from tests.preferences_schema import schema, written
from tests.tui import fakes
from tests.tui.conftest import app_for, screen_text, until, until_filled
from workbench.__main__ import run
from workbench.app.actions import ACTIONS
from workbench.app.app import WorkbenchApp
from workbench.app.preferences import USUAL, Preferences, preferences_path
from workbench.app.preferences.keymap import bound, key_called
from workbench.app.preferences.reading import read_preferences
from workbench.app.preferences.writing import SCHEMA, as_toml, keep_theme, what_holds

MINE = """# mine
metric = "rel_rms"  # std ratio is blind to order
prompt = "x = ["

[keys.map]
next = ["v", "f3"]
"previous" = "V"

[keys.everywhere]
help = "ctrl+h"
"""


@pytest.fixture
def mine():
    """Write the file of preferences."""

    def write(text: str):
        preferences_path().parent.mkdir(parents=True, exist_ok=True)
        preferences_path().write_text(text, encoding="utf-8")
        return preferences_path()

    return write


def test_a_file_that_is_not_there_says_nothing():
    assert read_preferences() == USUAL == Preferences()


def test_what_the_file_says_holds(mine):
    mine(MINE)
    keys = {("map", "next"): ("v", "f3"), ("map", "previous"): ("V",), ("everywhere", "help"): ("ctrl+h",)}
    assert read_preferences() == Preferences(metric="rel_rms", prompt="x = [", keys=keys)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('\n\nthem = "nord"', 3, "there is no preference them; did you mean theme?"),
        ('theme = "nrd"', 1, "there is no theme nrd; did you mean nord?"),
        ("theme = 7", 1, "there is no theme 7"),
        ('# x\nmetric = "rel_rsm"', 2, "there is no metric rel_rsm; did you mean rel_rms?"),
        ('prompt = ""', 1, "prompt is a text of 1 to 16384 characters"),
        ("keys = 7", 1, "keys is a table of tables"),
        ("[keys]\nmap = 7", 2, "keys.map is a table"),
        ('[keys.mapp]\nnext = "v"', 1, "no screen is called mapp; did you mean map?"),
        ('[keys.map]\n# nxt\nnxt = "v"', 3, "map has no action nxt; did you mean next?"),
        ('keys.map.help = "v"', 1, "map has no action help"),
        ("[keys.map]\nnext = []", 2, "next takes a key or a list of keys"),
        ('[keys.map]\nnext = [\n  "v",\n  "ctlr+s",\n]', 5, "there is no key ctlr+s; did you mean ctrl+s?"),
        ('[keys.map]\nnext = "zz"', 2, "there is no key zz"),
        ('[keys.map]\n\nnext = "b"', 3, "the key b is bound twice: it is that of bisect of map too"),
        ('[keys.map]\nnext = "v"\nprevious = "v"', 3, "the key v is bound twice"),
        ('[keys.cell]\norder = "?"', 2, "the key ? is bound twice: it is that of help too"),
        ('[keys.everywhere]\nhelp = "b"', 2, "the key b is bound twice: it is that of bisect of map too"),
        ("theme = 'nord'\ntheme = 'nord'", 2, "this is not TOML (Cannot overwrite a value)"),
        ("theme = [", 1, "this is not TOML (Invalid value)"),
        ("[" * 5000, 1, "this is not TOML"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_with_its_line(mine, text, line, words):
    path = mine(text)
    with pytest.raises(WorkbenchError) as caught:
        read_preferences()
    assert str(caught.value).startswith(f"{path}, line {line}: ")
    assert words in str(caught.value)


def test_what_is_no_text_is_refused(mine):
    path = mine("")
    path.write_bytes(b'# a\ntheme = "\xff"')
    with pytest.raises(WorkbenchError, match="line 2: this is not UTF-8"):
        read_preferences()
    path.unlink()
    path.mkdir()
    with pytest.raises(WorkbenchError, match="it is a folder"):
        read_preferences()


def test_two_keys_may_be_exchanged(mine):
    mine('[keys.map]\nnext = "b"\nbisect = "n"')
    keys = bound("map", read_preferences().keys)
    assert [action.called for action in keys["b"] + keys["n"]] == ["next", "bisect"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("?", "question_mark"),
        ("esc", "escape"),
        ("^n", "ctrl+n"),
        (",", "comma"),
        ("+", "plus"),
        ("ctrl+?", "ctrl+question_mark"),
    ],
)
def test_a_key_is_written_as_itself_or_by_name(text, name):
    assert key_called(text) == key_called(name) == name
    assert [key_called(key) for key in (" ", "", "shft+a", "aa", "ctrl+")] == [None] * 5


def test_every_action_has_a_name_of_its_own_and_keys_that_a_file_can_say():
    names = [(action.screen, action.called) for action in ACTIONS]
    assert len(names) == len(set(names))
    assert all(key_called(key) for action in ACTIONS for key in action.keys.split(",") if key)


def test_the_schema_is_that_of_the_tables_and_agrees_with_what_is_read(mine):
    assert SCHEMA.read_text(encoding="utf-8") == written(), "python -m tests.preferences_schema writes it"
    jsonschema.validate(tomllib.loads(MINE), schema())
    for odd in ('them = "x"', 'metric = "x"', 'prompt = ""', 'keys.map.nxt = "v"', "keys.map.next = []", "keys = 7"):
        mine(odd)
        with pytest.raises(WorkbenchError):
            read_preferences()
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(tomllib.loads(odd), schema())


def test_what_holds_is_printed_as_a_file_that_says_the_same(mine, capsys):
    path = mine(MINE)
    assert run(["preferences"]) == 0
    printed = capsys.readouterr().out
    assert str(path) in printed.splitlines()[0]
    held = read_preferences()
    assert tomllib.loads(printed) == tomllib.loads(as_toml(what_holds(held))) == what_holds(held)
    assert tomllib.loads(printed)["keys"]["map"]["next"] == ["v", "f3"]
    mine(printed)
    assert what_holds(read_preferences()) == what_holds(held)
    assert run(["preferences", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["preferences"] == what_holds(held)
    path.write_text('theme = "nrd"')
    assert run(["preferences"]) == 2
    assert "line 1: there is no theme nrd" in capsys.readouterr().err


def test_the_theme_is_kept_beside_what_the_user_wrote(mine, tmp_path):
    keep_theme("nord")
    assert preferences_path().read_text() == 'theme = "nord"\n'
    mine(MINE)
    keep_theme("dracula")
    lines = preferences_path().read_text().splitlines()
    lines.remove('theme = "dracula"')
    assert lines == MINE.splitlines()
    assert read_preferences().theme == "dracula"
    elsewhere = tmp_path / "dotfiles.toml"
    preferences_path().rename(elsewhere)
    preferences_path().symlink_to(elsewhere)
    keep_theme("nord")
    assert preferences_path().is_symlink()
    assert 'theme = "nord"' in elsewhere.read_text()
    elsewhere.write_text("[")
    with pytest.raises(WorkbenchError, match="the theme is not kept"):
        keep_theme("dracula")
    assert elsewhere.read_text() == "["


async def test_keys_of_ones_own_work_and_are_shown(session, mine):
    mine(MINE)
    app = WorkbenchApp(session, lambda: fakes.FakeCapture(*fakes.whole_capture()), preferences=read_preferences())
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await until_filled(pilot)
        assert " relative RMS │" in screen_text(pilot)
        await pilot.press("n", "question_mark")
        assert app.screen is screen
        assert screen.model.cursor != fakes.FAULTY
        await pilot.press("v")
        assert screen.model.cursor == fakes.FAULTY
        assert "v Next" in screen_text(pilot)
        await pilot.press("ctrl+h")
        await until(pilot, lambda: "v f3  " in screen_text(pilot))


async def test_a_theme_that_is_chosen_is_there_again(session):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await pilot.press("ctrl+p", *"theme", "enter")
        await until(pilot, lambda: "Search for themes" in screen_text(pilot))
        await pilot.press(*"nord", "enter")
        await until(pilot, lambda: app.theme == "nord")
        await until(pilot, preferences_path().exists)
    assert read_preferences().theme == "nord"


async def test_a_theme_that_cannot_be_kept_is_said(session, mine):
    path = mine("[")
    app, _ = app_for(session)
    async with app.run_test(size=(120, 24), notifications=True) as pilot:
        await until_filled(pilot)
        app.theme = "nord"
        await until(pilot, lambda: any("the theme is not kept" in each.message for each in app._notifications))
    assert path.read_text() == "["
