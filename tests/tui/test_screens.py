"""Into a cell, the weights, the configuration, the notes, help and palette."""

import dataclasses
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from textual import events
from textual.widgets import Input, TextArea

from kernels.stages import Site
from store.errors import StoreError
from tests.artifacts import tiny_gguf
from tests.tui import fakes
from tests.tui.conftest import app_for, screen_text, until, until_filled
from workbench.app.actions import ACTIONS, SCREENS, help_lines, of_screen
from workbench.app.cell.screen import CellScreen
from workbench.app.drafts import Draft, Drafts
from workbench.app.map.screen import MapScreen
from workbench.app.pages.config_screen import ConfigScreen
from workbench.app.pages.conventions_screen import ConventionsScreen
from workbench.app.pages.experiment_screen import ExperimentScreen
from workbench.app.pages.help_screen import HelpScreen
from workbench.app.pages.hypotheses_screen import HypothesesScreen
from workbench.app.pages.lab_screen import LabScreen
from workbench.app.pages.line_list import LineList
from workbench.app.pages.note_screen import NoteScreen
from workbench.app.pages.page_screen import EvidenceScreen, PageScreen
from workbench.app.pages.weights_screen import WeightsScreen
from workbench.app.sweep.screen import SweepScreen
from workbench.cells.elements import WORST, Elements, worst_elements
from workbench.cells.kept_cells import keeping
from workbench.lab.shelf import shelf_of
from workbench.session.session import Session, SessionSpec, Side


def line(pilot, index: int) -> str:
    """A line of the list on screen, by its place in the list."""
    view = pilot.app.screen.query_one(LineList)
    return view.render_line(index + 1 - round(view.scroll_y)).text


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_into_a_cell_by_size_of_difference_and_to_any_element(session, size):
    fakes.write_traces(session)
    app, _ = app_for(session)
    async with app.run_test(size=size) as pilot:
        await until_filled(pilot)
        await pilot.press("n", "enter")
        await until(pilot, lambda: "largest |d| first" in screen_text(pilot))
        screen = app.screen
        b = fakes.values(fakes.FAULTY)
        worst = divmod(int(np.abs(b).argmax()), fakes.CHANNELS)
        assert line(pilot, 0).split()[1:3] == [str(place) for place in worst]
        await pilot.press("colon", *"2,5", "enter")
        await pilot.pause()
        element = screen.elements.element(2 * fakes.CHANNELS + 5)
        assert line(pilot, screen.list.cursor).split()[:4] == ["▸", "2", "5", f"{element.a:.7g}"]
        assert np.float32(element.b) == b[2, 5]
        await pilot.press("s")
        await until(pilot, lambda: "in index order" in screen_text(pilot))
        assert line(pilot, 0).split()[1:3] == ["0", "0"]
        await until(pilot, lambda: "mlp.gate_proj.weight" in screen_text(pilot))
        for picture in ("A-B", "token × 1 channel", "█"):
            assert picture in screen_text(pilot)
        await pilot.press("escape")
        assert app.screen is app.map_screen


async def test_a_token_scope_holds_inside_the_cell(session):
    fakes.write_traces(session)
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await pilot.press("n", "t", "enter")
        await until(pilot, lambda: isinstance(app.screen, CellScreen))
        await until(pilot, lambda: "last token (3) │ 8 elements" in screen_text(pilot))
        assert app.screen.elements.positions == (3,)


async def test_elements_wait_for_the_capture(session):
    app, _ = app_for(session, *fakes.whole_capture()[:-2])
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: len(app.map_screen.model.cells) == 67)
        await pilot.press("enter", "e")
        await pilot.pause()
        assert app.screen is app.map_screen
        assert all("once the capture is complete" in notice.message for notice in app._notifications)
        assert len(app._notifications) == 2


async def test_where_no_tensors_are_kept_the_elements_that_differ_most_stand_in_their_place(tmp_path):
    a, b = Side("/models/a.gguf", "ggml"), Side("/models/b.apr", "apr")
    session = Session.create(tmp_path / "pair", SessionSpec(a, b, fakes.TOKENS, statistics_only=True))
    values = fakes.values(fakes.FAULTY)
    with keeping(session.cells_path, fakes.run_record("a.gguf"), fakes.run_record("b.apr", path="apr")) as keep:
        for cell in fakes.cells():
            worst = worst_elements(values * np.float32(3), values, cell.positions) if cell.site == fakes.FAULTY else ()
            keep(dataclasses.replace(cell, worst=worst))
    app, _ = app_for(session)
    async with app.run_test(size=(120, 40)) as pilot:
        await until_filled(pilot)
        await pilot.press("n", "enter")
        await until(pilot, lambda: f"the {WORST} elements of {values.size} that differ most" in screen_text(pilot))
        assert "No tensors are kept (--statistics-only)" in screen_text(pilot)
        first = divmod(int(np.abs(values).argmax()), fakes.CHANNELS)
        assert line(pilot, 0).split()[1:3] == [str(place) for place in first]
        await pilot.press("escape", "home", "enter")
        await until(pilot, lambda: "the elements could not be read" in screen_text(pilot))


async def test_millions_of_elements_open_and_jump(session):
    rng = np.random.default_rng(0)
    b = rng.normal(size=(7, 152_000)).astype(np.float32)
    a = b.copy()
    a[3, 77_777] += 9
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        elements = Elements(a, b, tuple(range(7)))
        app.push_screen(CellScreen(Site(None, "lm_head"), "all 7 tokens", lambda: elements, fakes.config(), str))
        await until(pilot, lambda: "largest |d| first" in screen_text(pilot))
        assert line(pilot, 0).split()[1:3] == ["3", "77777"]
        await pilot.press("s")
        await until(pilot, lambda: "in index order" in screen_text(pilot))
        await pilot.press("G")
        assert line(pilot, elements.count - 1).split()[1:3] == ["6", "151999"]
        await pilot.press("up", "up", "down", "pageup", "pagedown")
        assert app.screen.list.cursor == elements.count - 2


async def test_a_cell_opens_before_its_elements_are_read_and_keeps_what_is_typed_meanwhile(session):
    values, gate = fakes.values(fakes.FAULTY), threading.Event()

    def read() -> Elements:
        gate.wait()
        return Elements(values, values + 1, fakes.TOKENS)

    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        app.push_screen(CellScreen(fakes.FAULTY, "all 4 tokens", read, fakes.config(), str))
        await until(pilot, lambda: "all 4 tokens │ reading" in screen_text(pilot))
        await pilot.press("s", "b", "colon", "down")
        gate.set()
        await until(pilot, lambda: "32 elements, in index order" in screen_text(pilot))
        assert line(pilot, 0).split()[1:3] == ["1", "0"]


async def test_elements_that_cannot_be_read_are_told(session):
    def read() -> Elements:
        raise StoreError("a.h5 is damaged: put a whole copy in its place.")

    app, _ = app_for(session)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until_filled(pilot)
        app.push_screen(CellScreen(fakes.FAULTY, "all 4 tokens", read, fakes.config(), str))
        await until(pilot, lambda: "the elements could not be read" in screen_text(pilot))
        await until(pilot, lambda: "a.h5 is damaged" in screen_text(pilot))
        await pilot.press("s", "down", "escape")
        assert app.screen is app.map_screen


async def test_weights_are_listed_as_they_are_compared(tmp_path):
    tiny_gguf(tmp_path / "a.gguf", layers=3)
    tiny_gguf(tmp_path / "b[i].gguf", layers=3, seed=1)
    sides = (Side(str(tmp_path / name), "f32") for name in ("a.gguf", "b[i].gguf"))
    session = Session.create(tmp_path / "pair", SessionSpec(*sides, fakes.TOKENS))
    app, _ = app_for(session, layers=3)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        app.map_screen.show_site(Site(0, "ffn_gate"))
        await pilot.press("w")
        await until(pilot, lambda: "39/39 tensors compared" in screen_text(pilot))
        screen = app.screen
        assert isinstance(screen, WeightsScreen)
        assert "mlp.gate_proj.weight" in line(pilot, screen.list.cursor)
        assert line(pilot, screen.list.cursor).startswith("▸ ! ")
        await pilot.press("slash", *"norm", "enter", "s")
        await pilot.pause()
        assert screen.list.count == 7
        assert "/norm" in screen_text(pilot)


async def test_weights_that_cannot_be_read_are_told(session):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await pilot.press("w")
        await until(pilot, lambda: "could not be compared" in screen_text(pilot))
        assert "/models/a.gguf" in screen_text(pilot)


async def test_the_configuration_shows_differences_first(session):
    app, _ = app_for(session)
    a, b = fakes.run_record("a.gguf"), fakes.run_record("b[/].gguf", path="f32")
    b = dataclasses.replace(b, config=dataclasses.replace(b.config, rope_theta=5e5), settings={"x\x1b[2J": 1})
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await pilot.press("c")
        assert "! numeric_path" in screen_text(pilot)
        await pilot.press("q")
        app.push_screen(ConfigScreen(a, b))
        await pilot.pause()
        assert line(pilot, 0).startswith("▸ ! config rope_theta")
        assert line(pilot, 0).split()[-2:] == ["10000.0", "500000.0"]
        different = [line(pilot, index) for index in range(4)]
        assert all(" ! " in text for text in different)
        assert any("settings x\\x1b[2J" in text for text in different)
        assert re.search(r"4 of \d+ entries differ", screen_text(pilot))


async def test_an_open_list_follows_what_another_process_writes(session):
    (session.hypotheses_folder / "03-eps.md").write_text(PREDICTED.replace("eps [red]differs", "third"))
    app, _ = app_for(session)
    async with app.run_test(size=(120, 40)) as pilot:
        await until_filled(pilot)
        await pilot.press("H")
        await until(pilot, lambda: "third" in line(pilot, 0))
        prepared(session)  # another process writes two more, the first of them confirmed
        await until(pilot, lambda: "CONFIRMED" in line(pilot, 0) and app.screen.list.count == 3)
        assert app.screen.list.cursor == 2, "the cursor is where it was, on the third"
        done = subprocess.run(
            [sys.executable, "-m", "workbench", "retract", session.folder, "hypothesis 1", "--why", "too weak"],
            cwd=Path(__file__).parents[2],
            check=False,
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr
        await until(pilot, lambda: "STALE" in line(pilot, 0))
        await pilot.press("k", "k")
        await until(pilot, lambda: "hypothesis 1 was retracted: too weak" in screen_text(pilot))


async def test_a_note_is_saved_at_once_and_bound_to_its_cell(session):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await pilot.press("n", "a")
        screen = app.screen
        assert isinstance(screen, NoteScreen)
        screen.query_one("#title", Input).value = "gate [red]scaled"
        await pilot.press("ctrl+s")
        assert "there is no claim and no prediction" in " ".join(screen_text(pilot).replace("│", " ").split())
        screen.query_one("#claim", TextArea).text = "A is three times B"
        screen.query_one("#prediction", TextArea).text = "std ratio 3 for every token"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.screen is app.map_screen)
        (written,) = shelf_of(Session.open(session.folder)).hypotheses
        assert (written.title, written.site, written.status) == ("gate [red]scaled", fakes.FAULTY, "UNTESTED")
        assert written.evidence["std_ratio"] == app.map_screen.model.measures(fakes.FAULTY).std_ratio
        assert written.evidence["population"] == "all 4 tokens"
        assert written.evidence["b"]["sha256"] == "0" * 64
        assert Drafts(session.folder).get(fakes.FAULTY).empty
        await pilot.press("H", "space")
        assert "gate [red]scaled" in screen_text(pilot)
        assert "CONFIRMED" in line(pilot, 0)
        assert shelf_of(Session.open(session.folder)).hypotheses[0].status == "CONFIRMED"
        app.map_screen.show_site(Site(0, "attn_norm"))
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is app.map_screen)
        assert app.map_screen.model.cursor == fakes.FAULTY


async def test_what_is_being_written_survives_a_kill(session):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await pilot.press("n", "a", *"half")
        # What another process finds now is what a kill would leave.
        await until(pilot, lambda: Drafts(session.folder).get(fakes.FAULTY) == Draft("half"))
        for keys, title in ((("escape", "l", "a"), ""), (("escape", "h", "a"), "half")):
            left = app.screen
            await pilot.press(*keys)
            await until(pilot, lambda left=left: app.screen is not left and app.screen.query("#title"))
            assert app.screen.query_one("#title", Input).value == title


def test_drafts_spoilt_by_hand_do_no_harm(tmp_path):
    path = tmp_path / "drafts.json"
    for content in ("{", "[]", '{"lm_head": 3}', json.dumps({"lm_head": {"title": None}})):
        path.write_text(content)
        assert isinstance(Drafts(tmp_path).get(Site(None, "lm_head")).title, str)


async def test_a_broken_hypothesis_file_is_listed_with_its_line_and_edited(session, monkeypatch):
    (session.hypotheses_folder / "01-broken.md").write_text("---\ntitle: [\n---\n")
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await pilot.press("H", "space", "enter", "o")
        assert isinstance(app.screen, HypothesesScreen)
        assert "hypotheses/01-broken.md, line" in screen_text(pilot)
    assert (session.hypotheses_folder / "01-broken.md").read_text() == "---\ntitle: [\n---\n"


@pytest.mark.parametrize("keys", ["wjjj", "Hjjj", "cjjj", "axyz"])
async def test_keys_typed_ahead_wait_for_the_screen_that_they_are_meant_for(session, keys):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        cursor = app.map_screen.model.cursor
        for key in keys:
            app.post_message(events.Key(key, key))
        await until(pilot, lambda: app.screen is not app.map_screen and app.screen.is_mounted)
        await pilot.pause()
        assert app.map_screen.model.cursor == cursor
        if isinstance(app.screen, NoteScreen):
            await until(pilot, lambda: app.screen.query_one("#title", Input).value == "xyz")


async def test_help_lists_the_whole_table_and_the_palette_runs_it(session):
    app, _ = app_for(session)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await until_filled(pilot)
        await pilot.press("question_mark")
        assert "Go to the next cell that is broken or out of band." in screen_text(pilot)
        await pilot.press("G")
        *_, (_, meaning) = help_lines("map", lambda action: action)
        assert line(pilot, app.screen.list.count - 1).startswith("▸")
        assert meaning in screen_text(pilot)
        await pilot.press("slash", *"EXCHANGE rows", "enter")
        assert line(pilot, 1).split()[-5:] == ["x", "Exchange", "rows", "and", "columns."]
        await pilot.press("question_mark")
        assert app.screen is screen
        await pilot.press("colon", *"exchange axes")
        await until(pilot, lambda: "Exchange rows and columns" in screen_text(pilot))
        before = screen.query_one("#map").stage_rows
        await pilot.press("enter")
        await until(pilot, lambda: screen.query_one("#map").stage_rows != before)


def test_help_says_what_every_action_does():
    said = {text for screen in SCREENS for _, text in help_lines(screen, lambda action: action)}
    assert said >= {action.tooltip for action in ACTIONS}


def test_every_action_of_the_table_exists_and_no_key_has_two_meanings():
    screens = {"map": MapScreen, "cell": CellScreen, "weights": WeightsScreen, "config": ConfigScreen}
    screens |= {"hypotheses": HypothesesScreen, "note": NoteScreen, "page": PageScreen, "verdict": EvidenceScreen}
    screens |= {"lab": LabScreen, "experiment": ExperimentScreen, "help": HelpScreen, "conventions": ConventionsScreen}
    screens |= {"sweep": SweepScreen}
    from workbench.app.app import WorkbenchApp

    assert {action.screen for action in ACTIONS} == {*screens, "everywhere"}
    for name, screen in screens.items():
        keys = [key for action in of_screen(name) for key in action.keys.split(",") if key]
        assert len(keys) == len(set(keys)), name
        for action in of_screen(name):
            target, _, method = action.name.rpartition(".")
            owner = WorkbenchApp if target == "app" else screen
            assert hasattr(owner, f"action_{method.partition('(')[0]}"), action


PREDICTED = """---
title: eps [red]differs
claim: c
status: UNTESTED
layer: 2
stage: ffn_gate
prediction: config("a", "rms_norm_eps") != config("b", "rms_norm_eps")
---
"""


def prepared(session, **bound) -> None:
    """A hypothesis, confirmed by a test that used `bound`, and one that follows it."""
    test = {"time": "t", "status": "CONFIRMED", "value": True, "ladder": None, "used": bound}
    test["prediction"] = 'config("a", "rms_norm_eps") != config("b", "rms_norm_eps")'
    history = f"history: [{json.dumps(test)}]"
    text = PREDICTED.replace("UNTESTED", "CONFIRMED").replace("claim: c", f"claim: c\n{history}")
    (session.hypotheses_folder / "01-eps.md").write_text(text)
    after = "claim: c\nafter: {hypothesis: 1, verdict: CONFIRMED}"
    (session.hypotheses_folder / "02-then.md").write_text(PREDICTED.replace("claim: c", after))


async def test_a_stale_verdict_is_stale_on_the_list_and_beside_its_cell(session):
    prepared(session, tokens="of others")
    app, _ = app_for(session)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until_filled(pilot)
        await pilot.press("n")
        await until(pilot, lambda: "H 1 STALE: eps [red]differs" in screen_text(pilot))
        await pilot.press("H")
        await until(pilot, lambda: "STALE" in line(pilot, 0))
        assert "└─ if CONFIRMED: eps [red]differs" in line(pilot, 1)
        await until(pilot, lambda: "Stale: other tokens are run" in screen_text(pilot))
        await pilot.press("space")
        await until(pilot, lambda: "t tests it" in screen_text(pilot))
    assert "status: CONFIRMED" in (session.hypotheses_folder / "01-eps.md").read_text()
