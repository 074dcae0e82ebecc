"""Going anywhere by name, and the help: of the pane, searchable, scrolled at once."""

import pytest
from textual.command import CommandList

from kernels.stages import Site
from tests.tui import fakes
from tests.tui.conftest import app_for, screen_text, until, until_filled
from workbench.app.actions import help_lines
from workbench.app.pages.fuzzy import matched
from workbench.app.pages.help_screen import HelpScreen
from workbench.app.pages.hypotheses_screen import HypothesesScreen
from workbench.app.pages.note_screen import NoteScreen
from workbench.app.pages.weights_screen import WeightsScreen
from workbench.cells.marks import SIGNS
from workbench.cells.words import WORDS
from workbench.demo import MODEL
from workbench.session.session import Session, SessionSpec, Side


async def choose(pilot, query: str, shown: str) -> None:
    """Take the first of what the palette offers for a query."""
    await pilot.press("ctrl+p", *query)

    def first() -> str:
        (offered,) = pilot.app.screen.query(CommandList)
        return str(offered.get_option_at_index(0).prompt) if offered.option_count else ""

    await until(pilot, lambda: shown in first())
    await pilot.press("enter")


@pytest.mark.parametrize(
    ("query", "site"),
    [("layer 3", Site(3, "attn_norm")), ("gate 2", Site(2, "ffn_gate")), ("3ffnup", Site(3, "ffn_up"))],
)
async def test_to_a_layer_and_to_a_cell(session, query, site):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        await choose(pilot, query, "Go to this")
        await until(pilot, lambda: screen.model.cursor == site)


async def test_to_a_stage_in_the_layer_where_one_is(session):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        screen.show_site(Site(2, "attention"))
        await choose(pilot, "ffn_silu", "Go to this stage")
        await until(pilot, lambda: screen.model.cursor == Site(2, "ffn_silu"))


async def test_to_a_tensor_from_a_page_over_the_map(session):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await pilot.press("c")
        await choose(pilot, "k_proj 2 weight", "layers.2.self_attn.k_proj.weight")
        await until(pilot, lambda: isinstance(app.screen, WeightsScreen))
        assert app.screen._wanted == "model.layers.2.self_attn.k_proj.weight"
        assert app.screen_stack == [app.map_screen, app.screen]


async def test_to_a_token_by_position_or_id(session):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        await choose(pilot, "token 9", "token 2 (id 9)")
        await until(pilot, lambda: screen.model.view.tokens.position == 2)
        assert "token 2 only" in screen_text(pilot)


async def test_to_a_token_by_its_text(tmp_path):
    sides = (Side(str(path), "ggml") for path in ("/gone.gguf", MODEL))
    session = Session.create(tmp_path / "pair", SessionSpec(*sides, fakes.TOKENS))  # <|im_start|> # ' <|im_end|>
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        await choose(pilot, "token IM_E", 'token 3 "<|im_end|>"')
        await until(pilot, lambda: screen.model.view.tokens.position == 3)
        await choose(pilot, "#", 'token 1 "#"')
        await until(pilot, lambda: screen.model.view.tokens.position == 1)


async def test_to_a_note_whatever_its_name(session):
    text = "---\ntitle: '{}'\nclaim: c\nstatus: UNTESTED\nlayer: 2\nstage: ffn_gate\nprediction: p\n---\n"
    for number, title in enumerate(("first", "eps [red]differs[/nope]"), 1):
        (session.hypotheses_folder / f"0{number}-note.md").write_text(text.format(title))
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await choose(pilot, "differs", "2 eps [red]differs[/nope]")
        await until(pilot, lambda: isinstance(app.screen, HypothesesScreen) and app.screen.is_mounted)
        assert app.screen.list.cursor == 1


async def test_what_is_being_written_is_not_left_for_a_place(session):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await pilot.press("a", *"ffn")
        await pilot.press("ctrl+p", *"ffn_gate")
        await until(pilot, lambda: "No matches found" in screen_text(pilot))
        await pilot.press("escape")
        assert isinstance(app.screen, NoteScreen)


def test_a_name_is_meant_by_its_words_in_any_order_and_by_some_of_its_letters():
    names = ["layer 3 ffn_gate", "layer 13 ffn_gate", "layer 3 ffn_gate_norm", "model.layers.3.mlp.gate_proj.weight"]

    def best(query: str) -> str:
        return max(names, key=lambda name: (matched(query, name) or (0,))[0])

    assert [best(query) for query in ("3 gate", "gate 3", "l3gate", "FFN_GATE 13", "3mlp", "norm")] == [
        *[names[0]] * 3,
        *(names[1], names[3], names[2]),
    ]
    assert matched("gate 4", names[0]) is None
    assert matched("etag", names[0]) is None
    assert matched("", names[0]) is None
    assert matched("i", "İstanbul") is None
    score, places = matched("ga 3", names[0])
    assert [names[0][place] for place in places] == ["3", "g", "a"]
    assert 0 < score < 1


@pytest.mark.parametrize(("open_it", "heading"), [((), "Map"), (("c",), "Configuration")])
async def test_help_begins_with_the_pane_and_scrolls_at_once(session, open_it, heading):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await pilot.press(*open_it, "question_mark")
        assert screen_text(pilot).splitlines()[2].rstrip() == f"▸ {heading}"
        await pilot.press("down", "pagedown", "pagedown")
        assert f" {heading} " not in screen_text(pilot)
        await pilot.press("g")
        assert screen_text(pilot).splitlines()[2].startswith(f"▸ {heading}")
        await pilot.press("question_mark")
        assert not isinstance(app.screen, HelpScreen)


async def test_help_is_searched(session):
    app, _ = app_for(session)
    async with app.run_test(size=(120, 40)) as pilot:
        await until_filled(pilot)
        await pilot.press("question_mark", "slash", *"exchange zzz", "enter")
        assert "/exchange zzz: nothing has these words" in screen_text(pilot)
        await pilot.press("slash", *"exchange ROWS", "enter")
        shown = screen_text(pilot).splitlines()
        assert shown[2].startswith("▸ Map")
        assert "Exchange rows and columns." in shown[3]
        assert not shown[4].strip()
        await pilot.press("slash", *["backspace"] * 13, "enter")
        assert "Show the next metric." in screen_text(pilot)


async def test_the_words_of_the_product_are_in_the_help_and_in_the_docs(session):
    app, _ = app_for(session)
    async with app.run_test(size=(120, 40)) as pilot:
        await until_filled(pilot)
        await pilot.press("question_mark", "slash", *"unexplained after", "enter")
        shown = " ".join(screen_text(pilot).split())
        assert "what is left of the difference once the named mistake is undone" in shown
    from tests.unit.test_structure import ROOT

    docs = (ROOT / "docs" / "interface.md").read_text(encoding="utf-8")
    for word, meaning in WORDS.items():
        assert f"| {word} | {meaning} |" in docs


def test_every_sign_and_scale_of_the_map_is_explained_in_the_help():
    lines = list(help_lines("map", lambda action: action))
    start = lines.index(("Signs on the map", ""))
    explained = [glyph for glyph, _ in lines[start + 1 : lines.index(("Everywhere", ""))]]
    assert {*SIGNS.values(), "=", "·", "?", "≠", "!", "0-7", "0-8", "one column"} == set(explained)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (("r",), "There is nothing to resume: the capture is complete."),
        (("escape",), "Nothing is at work that could be stopped, and no filter is set."),
        (("H", "t"), "There is no hypothesis yet"),
        (("H", "o"), "There is no hypothesis yet"),
    ],
)
async def test_a_key_that_can_do_nothing_says_why(session, keys, words):
    app, _ = app_for(session)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until_filled(pilot)
        await pilot.press(*keys)
        await until(pilot, lambda: words in " ".join(screen_text(pilot).replace("▌", " ").split()))
