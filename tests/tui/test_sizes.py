"""What the pages of a cell, the weights and the hypotheses show at three sizes, and while things go wrong."""

import re

import pytest

from kernels.stages import Site
from tests.artifacts import tiny_gguf
from tests.tui import fakes
from tests.tui.conftest import app_for, screen_text, until, until_filled
from workbench.app.pages.line_list import CUT
from workbench.capture.job import Failed
from workbench.lab.hypothesis import Hypothesis
from workbench.lab.shelf import keep
from workbench.session.session import Session, SessionSpec, Side

SIZES = [(80, 24), (120, 40), (200, 60)]
TITLE = "the gate of layer 2 is scaled by three in B, as its converter multiplies what was multiplied before it came"


@pytest.mark.parametrize("size", SIZES)
async def test_a_cell_shows_pictures_a_head_elements_and_their_weights(session, size):
    fakes.write_traces(session)
    app, _ = app_for(session)
    async with app.run_test(size=size) as pilot:
        await until_filled(pilot)
        await pilot.press("n", "enter")
        await until(pilot, lambda: "largest |d| first" in screen_text(pilot) and "max |d| of" in screen_text(pilot))
        await until(pilot, lambda: "mlp.gate_proj.weight" in screen_text(pilot))
        lines = screen_text(pilot).splitlines()
        assert lines[0].rstrip() == " layer 2 ffn_gate │ all 4 tokens │ 32 elements, largest |d| first"
        assert [line[1:4] for line in lines[1:4]] == ["A  ", "B  ", "A-B"]
        assert re.match(r" max \|d\| of 1 token × 1 channel: 7 is \d\.\d+, a digit less is half, = none", lines[4])
        head = next(n for n, line in enumerate(lines) if line.split()[:2] == ["token", "chan."])
        assert lines[head].split() == ["token", "chan.", "A", "B", "A-B", "|d|/|B|", "ULP"]
        assert head == 9  # as many lines of the strip as there are tokens
        assert lines[head + 1].startswith("▸")
        assert lines[head + 1].split()[-2] == "2"  # |d|/|B|
        assert any(line.startswith(" token ") for line in lines[-5:-2])
        assert all(words in lines[-1] for words in ("? Help", "s Order", "esc Back"))


@pytest.mark.parametrize("size", SIZES)
async def test_hypotheses_show_their_number_status_cell_and_what_of_the_title_there_is_room_for(session, size):
    for number in range(3):
        site = (Site(2, "ffn_gate"), Site(23, "post_attn_residual"), None)[number]
        keep(session, Hypothesis(TITLE, site, "claim", "a sentence"))
    app, _ = app_for(session)
    async with app.run_test(size=size) as pilot:
        await until_filled(pilot)
        await pilot.press("H")
        await until(pilot, lambda: "Prediction: a sentence" in screen_text(pilot))
        lines = screen_text(pilot).splitlines()
        assert lines[0].startswith(" 3 UNTESTED")
        assert lines[1].split() == ["no", "status", "cell", "title"]
        assert [line[2:].split()[:2] for line in lines[2:5]] == [[str(n), "UNTESTED"] for n in (1, 2, 3)]
        assert "layer 23 post_attn_residual" in lines[3]
        for line in lines[2:5]:
            assert (TITLE in line) == (size[0] == 200)
            assert line.rstrip().endswith(CUT) == (size[0] < 200)
            assert "the gate of layer 2" in line


@pytest.mark.parametrize("size", SIZES)
async def test_weights_show_names_types_and_figures_and_what_is_known_of_one(tmp_path, size):
    tiny_gguf(tmp_path / "a.gguf", layers=3)
    tiny_gguf(tmp_path / "b.gguf", layers=3, seed=1)
    sides = (Side(str(tmp_path / name), "f32") for name in ("a.gguf", "b.gguf"))
    session = Session.create(tmp_path / "pair", SessionSpec(*sides, fakes.TOKENS))
    app, _ = app_for(session, layers=3)
    async with app.run_test(size=size) as pilot:
        await until_filled(pilot)
        await pilot.press("w")
        await until(pilot, lambda: "39/39 tensors compared" in screen_text(pilot))
        lines = screen_text(pilot).splitlines()
        assert "out of band │ 0 unmatched │ model order" in lines[0]
        assert lines[1].split() == ["tensor", "types", "A/B", "rel.", "RMS", "1-cosine", "max", "|d|"]
        first = lines[2].split()
        assert first[:2] == ["▸", "!"]
        assert first[2:4] == ["embed_tokens.weight", "F32"]
        assert all(float(figure) > 0 for figure in first[4:7])
        assert not any(line.rstrip().endswith(CUT) for line in lines[2:12])
        assert any("post_attention_layernorm.weight" in line for line in lines[2:12]) == (size[0] > 80)
        await until(pilot, lambda: "model.embed_tokens.weight" in screen_text(pilot))
        assert "compared" in "".join(screen_text(pilot).splitlines()[-8:])


@pytest.mark.parametrize("key", ["w", "c", "H", "a", "question_mark", "s"])
async def test_a_capture_that_fails_under_an_open_page_is_told_and_closes_nothing(session, key):
    events = fakes.whole_capture()
    app, capture = app_for(session, *events[:40])
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: len(app.map_screen.model.cells) > 30)
        await pilot.press(key)
        await until(pilot, lambda: app.screen is not app.map_screen)
        page = app.screen
        capture.say(*events[40:50], Failed("The model is [b]gone[/b]\x1b[2J."), None)
        await until(pilot, lambda: app.map_screen.phase == "failed")
        await until(pilot, lambda: "The model is [b]gone[/b]" in " ".join(screen_text(pilot).replace("▌", " ").split()))
        assert app.screen is page
        assert "\x1b" not in screen_text(pilot)
        await pilot.resize_terminal(120, 40)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.map_screen)


async def test_elements_of_one_token_scope_survive_a_resize_and_a_note_over_them(session):
    fakes.write_traces(session)
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await pilot.press("n", "t", "enter")
        await until(pilot, lambda: "last token (3) │ 8 elements" in screen_text(pilot))
        page = app.screen
        await pilot.press("a", "x")
        await pilot.resize_terminal(200, 60)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is page)
        await until(pilot, lambda: len(screen_text(pilot).splitlines()) == 60 and "max |d| of" in screen_text(pilot))
        assert page.elements.element(0).token == 3
