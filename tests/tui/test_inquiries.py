"""Questions about a pair: bisect, views, patch, bytes; each is asked with a key and answered in words."""

import json

import pytest
from textual.widgets import Input

from kernels.stages import Site
from tests.memory_model import spine
from tests.tui import fakes
from tests.tui.conftest import app_for, screen_text, until, until_filled
from workbench.app.app import WorkbenchApp
from workbench.app.map.view import MapView
from workbench.app.map.words import status
from workbench.app.pages.experiment_screen import ExperimentScreen
from workbench.app.pages.page_screen import EvidenceScreen, PageScreen
from workbench.bisect.verdict import Bisection, Culprit
from workbench.cells.decomposition import Checked, Decomposition
from workbench.cells.flips import Flips
from workbench.demo import demo_session
from workbench.jobs.answering import answer
from workbench.jobs.bisected import keep, last_bisection
from workbench.jobs.inquiry import Answered, Doing, Found, Inquiry, Logged, Refused, event_from_wire, event_to_wire
from workbench.lab.experiment import Parameter
from workbench.lab.predictions.prediction import read_prediction
from workbench.lab.proposals import proposals
from workbench.session.session import Session

SPOILT = Site(2, "qkv_matmul")


def checked(site: Site) -> Checked:
    """A cell whose local difference is a tenth of its floor, or at SPOILT a hundred times it."""
    local = 0.5 if site == SPOILT else 0.0005
    return Checked(
        Decomposition(site, 0.6, local, 0.1, 0.005, 1.0, 1.1, Flips(3, 100, 0.1, 0.4)), 1.5, site == SPOILT, "", False
    )


def accusing(words: str) -> dict:
    """What a session keeps of a bisection that accuses SPOILT."""
    culprit = Culprit(SPOILT, "weights", "permuted_rope", words, "q_proj")
    return fakes.bisected() | Bisection("divergent", SPOILT, culprit, (), None, ()).to_json()


def app_asking(session: Session, *events: object, bisects: bool = False) -> tuple[WorkbenchApp, list, list]:
    """An app with a finished capture, whose questions are answered by `events`; the questions and their processes."""
    asked, processes = [], []

    def start(inquiry):
        asked.append(inquiry)
        processes.append(fakes.FakeCapture(*events))
        return processes[-1]

    capture = fakes.FakeCapture(*fakes.whole_capture())
    return WorkbenchApp(session, lambda: capture, start, bisects), asked, processes


def test_events_pass_the_pipe_without_loss():
    for event in (
        Doing(1, 2, "layer 1"),
        checked(SPOILT),
        Answered("words", SPOILT),
        Logged(),
        Found({"a": [1]}),
        Refused("why"),
    ):
        assert event_from_wire(event_to_wire(event)) == event


async def test_bisect_shows_how_far_it_is_goes_to_the_culprit_and_says_why(session):
    text = "DIVERGENT at layer 2 qkv_matmul: permuted_rope (weights).\n\nwhy        [b]rows[/b] are permuted"
    app, asked, processes = app_asking(session, Doing(1, 4, "layer 1"))
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        await pilot.press("b")
        await until(pilot, lambda: "examine 1/4 layer 1" in screen_text(pilot))
        keep(session, accusing("[b]rows[/b] are permuted"), text)
        processes[0].say(Logged(), None)
        await until(pilot, lambda: screen.model.cursor == SPOILT)
        broken = " ✗ BROKEN at layer 2 qkv_matmul: [b]rows[/b] are permuted."
        await until(pilot, lambda: screen_text(pilot).startswith(broken))
        await pilot.press("enter")
        assert isinstance(app.screen, EvidenceScreen)
        assert "why        [b]rows[/b] are permuted" in screen_text(pilot)
        assert [inquiry.kind for inquiry in asked] == ["examine"]
        await until(pilot, lambda: not screen.asking)


@pytest.mark.parametrize("words", ["run again layer 35 attn_out", "swap layers of B with A's q_proj.weight and k_proj"])
async def test_the_line_of_words_names_the_way_out_of_a_long_question_and_the_end_of_a_capture(session, words):
    doing = Doing(531, 580, words)
    processes = []

    def start(_):
        processes.append(fakes.FakeCapture(doing))
        return processes[-1]

    app = WorkbenchApp(session, lambda: fakes.FakeCapture(*fakes.whole_capture(36)), start)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        done = status(screen.model, "finished", "done in 1.5 s", "").plain[:80]
        assert "done in 1.5 s" in done
        assert "1 out of band" in done
        begins = f" examine 531/580 {words[:36]}"
        await until(pilot, lambda: screen_text(pilot).splitlines()[1].startswith(begins))
        assert "(esc stops" in screen_text(pilot).splitlines()[1]
        await pilot.press("escape")
        await until(pilot, lambda: not screen.asking)


async def test_escape_gives_a_bisection_up(session):
    app, _, processes = app_asking(session, Doing(1, 4, "layer 1"))
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        await pilot.press("b")
        await until(pilot, lambda: "examine 1/4" in screen_text(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: processes[0].cancelled and not screen.asking)
        assert app.screen is screen


async def test_the_verdict_comes_by_itself_and_disturbs_nobody(session):
    app, asked, processes = app_asking(session, bisects=True)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        screen = await until_filled(pilot)
        await until(pilot, lambda: bool(processes))
        assert screen_text(pilot).startswith(" Looking for the first place")
        await pilot.press("a")
        await until(pilot, lambda: app.screen.query("#title"))
        note = app.screen
        await pilot.press(*"mine")
        keep(session, accusing("rows"), "DIVERGENT")
        processes[0].say(Logged())
        await until(pilot, lambda: any("verdict is ready" in notice.message for notice in app._notifications))
        await pilot.press(*"!?")
        assert app.screen is note
        assert note.query_one("#title").value == "mine!?"
        before = screen.model.cursor
        processes[0].say(Answered(""), None)
        await pilot.press("escape")
        await until(pilot, lambda: screen.model.marks)
        assert screen.model.cursor == before != SPOILT
        await pilot.press("m", "m")  # the verdict lies over every metric
        assert "✗" in screen_text(pilot)
        await pilot.press("n")
        assert screen.model.cursor == SPOILT
        await until(pilot, lambda: "BROKEN: the verdict accuses this cell" in screen_text(pilot))
        for words in ("WHY", "permuted_rope", "PROOF", "not made yet: P", "COST", "KL(B‖A) 0.01 nats", "FIX"):
            assert words in screen_text(pilot)
    assert [inquiry.kind for inquiry in asked] == ["examine"]
    again, asked, _ = app_asking(Session.open(session.folder), bisects=True)
    async with again.run_test(size=(80, 24)) as pilot:  # reopened
        await until(pilot, lambda: screen_text(pilot).startswith(" ✗ BROKEN at layer 2 qkv_matmul: rows."))
        await pilot.press("q")
    assert again.return_value == 1
    assert not asked


async def test_questions_wait_for_each_other_and_a_page_left_gives_its_own_up(session):
    app, asked, processes = app_asking(session, Doing(1, 4, "layer 1"))
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await until_filled(pilot)
        await pilot.press("b", "i", "P")
        await until(pilot, lambda: "patch embedding" in screen_text(pilot))
        assert [inquiry.kind for inquiry in asked] == ["examine"]
        await pilot.press("escape")
        assert [inquiry.kind for inquiry in screen.laboratory.waiting] == ["views"]
        processes[0].say(Refused("no models"), None)
        await until(pilot, lambda: len(asked) == 2)
        await until(pilot, lambda: "No verdict: no models" in screen_text(pilot))
        assert processes[0].cancelled
        processes[1].say(*map(checked, spine(4)), Answered(""), None)
        await until(pilot, lambda: screen.model.viewed and not screen.asking)
        assert [inquiry.kind for inquiry in asked] == ["examine", "views"]
        await pilot.press("t")
        assert screen.model.view.tokens.kind == "all"
        assert any("over all tokens only" in notice.message for notice in app._notifications)
        await pilot.press("m")
        assert screen.model.view.metric == "rel_rms"
        assert any("relative RMS is of what was observed" in notice.message for notice in app._notifications)


async def test_leaving_before_the_findings_are_written_takes_a_second_key(session):
    app, _, processes = app_asking(session, Doing(1, 4, "layer 1"))
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await until_filled(pilot)
        await pilot.press("e", "q")
        assert any("q again leaves without" in notice.message for notice in app._notifications)
        await pilot.press("escape")
        await until(pilot, lambda: processes[0].cancelled and not screen.asking)
        await pilot.press("q")
    assert app.return_value == 1


async def test_next_does_not_call_right_what_was_not_compared(session):
    app, _ = app_for(session, *fakes.whole_capture()[:3])
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: len(app.map_screen.runs) == 2)
        await pilot.press("n")
        assert [notice.message for notice in app._notifications] == [
            "No further cell is out of band, of the 0 of 67 that were compared."
        ]


async def test_a_verdict_is_kept_in_the_session(session):
    text = "NUMERICS ONLY: \x1b[2Jnothing is broken."
    keep(session, fakes.bisected(), text)
    app, asked, _ = app_asking(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await pilot.press("b")
        await until(pilot, lambda: "NUMERICS ONLY" in screen_text(pilot))
        assert "\\x1b[2J" in screen_text(pilot)
        assert "\x1b" not in screen_text(pilot)
        assert not asked
        await pilot.press("r")
        await until(pilot, lambda: asked)
        assert asked[0].kind == "bisect"


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_views_are_streamed_and_what_is_not_known_is_no_number(session, size):
    order = spine(4)
    app, asked, processes = app_asking(session, *map(checked, order[:40]))
    async with app.run_test(size=size) as pilot:
        screen = await until_filled(pilot)
        assert "std ratio A/B │ all 4 tokens" in screen_text(pilot).splitlines()[1]
        await pilot.press("i")
        await until(pilot, lambda: len(screen.model.checked) == 40)
        assert "local ‖d‖/‖B‖ │ all 4 tokens" in screen_text(pilot).splitlines()[1]
        await pilot.press("n")
        assert screen.model.cursor == SPOILT
        await until(pilot, lambda: "own error 0.5!, came in 0.1" in screen_text(pilot))
        assert size[1] == 24 or "100.0× what rounding can cause" in screen_text(pilot)
        view = screen.query_one(MapView)
        assert view.render_line(19).text.split()[-1] == "?"
        processes[0].say(*map(checked, order[40:]), Answered(""), None)
        await until(pilot, lambda: screen.model.viewed and not screen.asking)
        signs = []
        for _ in range(4):
            await pilot.press("i")
            await until(pilot, lambda: not screen._changed)
            signs.append(screen_text(pilot).splitlines()[-2].rstrip().rpartition("  ")[2])
        assert screen.model.view.aspect == "observed"
        powers, times = ("0-7 ×10 a step", "0-7 ×2 a step"), "0-8 times what rounding can cause, 9 more"
        assert size[1] == 24 or signs == [*powers, times, powers[0]]
        assert len(asked) == 1


async def test_an_exchange_is_shown_on_a_page_and_a_refusal_in_its_own_sentence(session):
    app, asked, processes = app_asking(session, Doing(2, 4, "layers of A"))
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        screen.show_site(SPOILT)
        await pilot.press("P")
        await until(pilot, lambda: "patch layer 2 qkv_matmul │ 2/4 layers of A" in screen_text(pilot))
        processes[0].say(Refused("x.gguf is gone\x1b[2J; put it back."), None)
        await until(pilot, lambda: "x.gguf is gone\\x1b[2J; put it back." in screen_text(pilot))
        assert (asked[0].kind, asked[0].site) == ("patch", SPOILT)


async def test_the_shipped_fault_is_found_and_followed_down_to_the_bytes(tmp_path):
    session = demo_session("permuted_rope", 3, tmp_path / "demo")
    app = WorkbenchApp(session)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: app.map_screen.known is not None and app.map_screen.known.whole)
        assert screen_text(pilot).startswith(" ✗ BROKEN at layer 3 qkv_matmul: the rows of q_proj of B are in ")
        await pilot.press("b", "enter")
        assert "DIVERGENT at layer 3 qkv_matmul: permuted_rope (weights)." in screen_text(pilot)
        assert "falls by 95.5%" in screen_text(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: "largest |d| first" in screen_text(pilot))
        await pilot.press("b")
        await until(pilot, lambda: "equal, bit for bit" in screen_text(pilot))
        assert isinstance(app.screen, PageScreen)
        assert app.screen._text.count("equal, bit for bit") == 2
        assert "dmin" in app.screen._text
        await pilot.press("escape", "p")
        await until(pilot, lambda: "times)" in screen_text(pilot))
    assert last_bisection(Session.open(session.folder)).found.culprit.cause == "permuted_rope"


PARAMETERS = (
    Parameter("depth", 5, "how many products", 1, 64),
    Parameter("at", (0.5, 2.0), "scales", 0, 9),
    Parameter("made", 1, "of the published input", 0, 9, only="made"),
)
LISTED = {
    "experiments": [
        {
            "experiment": name,
            "name": word,
            "question": f"question of {word}",
            "claim": "[b]claim[/b]",
            "shows": "shows",
            "hides": "hides",
            "published": None,
            "on": on,
            "parameters": [known.to_json() for known in PARAMETERS] if word != "rows" else [],
        }
        for name, word, on in (("009", "chain", "made"), ("014", "rows", "model"), ("heads", "heads", "either"))
    ]
}


def a_result(x: list) -> dict:
    return {
        "experiment": "014",
        "name": "rows",
        "question": "q",
        "claim": "[b]claim[/b]",
        "inputs": {"layer": 2, "stage": "ffn_out", "a": "a.gguf"},
        "series": [{"at": at, "rel": 10.0**-n} for n, at in enumerate(x)],
        "value": 0.01,
        "published": "1 %",
        "reproduced": None,
        "verdict": "PARTIAL",
        "says": "amplify",
        "shows": "shows",
        "hides": "hides",
        "against": {"vector_rel_rms": 0.001, "cancellation": None},
        "notes": ["a note"],
        "figures": [],
        "plot": {"x": "at", "y": "rel", "log": True, "log_x": False},
    }


@pytest.mark.parametrize("width", [60, 80, 200])
async def test_a_plot_puts_every_name_under_its_own_point_and_labels_a_flat_series(session, width):
    app, _, _ = app_asking(session)
    async with app.run_test(size=(width, 24)) as pilot:
        await until_filled(pilot)
        page = ExperimentScreen("rows")
        await app.push_screen(page)
        record = a_result(["one order of sums", "another one", "a third of them", "fourth"])
        page.take(record | {"series": [row | {"rel": 1.0} for row in record["series"]]})
        await until(pilot, lambda: screen_text(pilot).count("●") == 4)
        lines = screen_text(pilot).splitlines()
        points = next(line for line in lines if "●" in line)
        axis = next(n for n, line in enumerate(lines) if "┻" in line and n > lines.index(points))
        names = lines[axis + 1]
        places = [n for n, letter in enumerate(points) if letter == "●"]
        for place, start in zip(places, ("one order", "another", "a third", "fourth"), strict=True):
            assert names.index(start) <= place <= names.index(start) + len("one order of sums")
        assert points[: places[0]].split()[0] == "1"
        await pilot.resize_terminal(120, 40)
        await until(pilot, lambda: "a third of them" in screen_text(pilot))


@pytest.mark.parametrize("x", [[1, 2, 3], ["one order", "another", "a third"], [1]])
async def test_the_lab_runs_an_experiment_at_the_cell_and_draws_what_it_found(session, x):
    app, asked, processes = app_asking(session)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        screen.show_site(SPOILT)
        await pilot.press("L")
        await until(pilot, lambda: bool(processes))
        processes[-1].say(Found(LISTED), None)
        await until(pilot, lambda: "question of rows" in screen_text(pilot))
        assert "[b]claim[/b]" in screen_text(pilot)
        processes.clear()
        await pilot.press("j", "p")  # which was published of a model
        assert not processes
        await pilot.press("enter")
        await until(pilot, lambda: bool(processes))
        assert (asked[-1].kind, asked[-1].experiment, asked[-1].site) == ("lab", "014", SPOILT)
        processes[-1].say(Found(a_result(x)), None)
        await until(pilot, lambda: "layer 2 ffn_out │ PARTIAL" in screen_text(pilot))
        assert ("rel (logarithmic) by at" in screen_text(pilot)) == (len(x) > 1)
        await until(pilot, lambda: "[b]claim[/b]" in screen_text(pilot))
        await pilot.press("G")
        await pilot.press("escape", "escape")
        assert app.screen is screen


async def test_the_parameters_of_an_experiment_are_set_before_it_is_run(session):
    app, asked, processes = app_asking(session)
    async with app.run_test(size=(120, 30), notifications=True) as pilot:
        (await until_filled(pilot)).show_site(SPOILT)
        await pilot.press("L")
        await until(pilot, lambda: bool(processes))
        processes[-1].say(Found(json.loads(json.dumps(LISTED))), None)
        await until(pilot, lambda: "Set: depth=5 at=0.5,2.0 made=1" in screen_text(pilot))
        processes.clear()
        await pilot.press("s")
        prompt = app.screen
        for text, problem in (
            ("depth=65", "depth=65: give a whole number from 1 to 64"),
            ("depth=1 depth=2", "depth is given twice; give it once"),
            ("deep=1", "deep is no parameter of it; it has depth, at, made"),
            ("depth", "depth is not KEY=VALUE, such as --set depth=5"),
            (r"at=1,[b]x[/b]", "at=1,[b]x[/b]: give 1 to 32 numbers from 0 to 9, separated by commas"),
        ):
            prompt.query_one(Input).value = text
            await pilot.press("enter")
            assert app.screen is prompt
            assert problem in " ".join(screen_text(pilot).split())
        prompt.query_one(Input).value = "depth=12 at=1,2 made=1"
        await pilot.press("enter")
        await until(pilot, lambda: "Set: depth=12 at=1,2 made=1" in screen_text(pilot))
        await pilot.press("p")
        await until(pilot, lambda: bool(processes))
        assert (asked[-1].experiment, asked[-1].site) == ("009", None)
        assert asked[-1].settings == {"depth": "12", "at": "1,2"}, "what is as usual is not given"
        assert Inquiry.from_json(json.loads(json.dumps(asked[-1].to_json()))) == asked[-1]
        await pilot.press("escape", "G", "s")
        app.screen.query_one(Input).value = "made=2"
        processes.clear()
        await pilot.press("enter", "enter")
        await until(pilot, lambda: "made is about the published input only" in screen_text(pilot))
        assert not processes
        await pilot.press("k", "s")
        await until(pilot, lambda: "This one has no parameters" in screen_text(pilot))


async def test_the_lab_says_why_it_has_no_answer(session):
    app, _, processes = app_asking(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await pilot.press("L")
        await until(pilot, lambda: bool(processes))
        processes[-1].say(Found(LISTED), None)
        await until(pilot, lambda: "question of rows" in screen_text(pilot))
        processes.clear()
        await pilot.press("p")
        await until(pilot, lambda: bool(processes))
        processes[-1].say(Refused("there is\x1b[2J none"), None)
        await until(pilot, lambda: r"there is\x1b[2J none" in screen_text(pilot))


def test_the_process_behind_the_lab_answers_with_records_and_keeps_them(tmp_path):
    told: list = []
    site = Site(3, "ffn_norm")
    session = demo_session(folder=tmp_path / "demo")
    for inquiry in (
        Inquiry(session.folder, "lab"),
        Inquiry(session.folder, "lab", experiment="009"),
        Inquiry(session.folder, "lab", experiment="009", settings={"depth": "3"}),
        Inquiry(session.folder, "lab", site, experiment="008"),
    ):
        told.clear()
        answer(inquiry, told.append)
        assert event_from_wire(event_to_wire(told[-1])) == told[-1]
        if not inquiry.experiment:
            assert "chain" in [known["name"] for known in told[-1].record["experiments"]]
        if inquiry.settings:
            assert len(told[-1].record["series"]) == 3
    assert told[-1].record["inputs"]["stage"] == "ffn_out"  # a norm has no product, but its layer has
    (kept,) = [entry for entry in session.entries() if entry["kind"] == "experiment"]
    assert kept["value"] == told[-1].record["value"]


async def test_a_hypothesis_is_tested_in_the_background_and_shown_with_its_verdict(session):
    front = "title: t\nclaim: c\nstatus: UNTESTED\nprediction: 1 < 2"
    path = session.hypotheses_folder / "01-t.md"
    path.write_text(f"---\n{front}\n---\n")
    app, asked, processes = app_asking(session, Doing(1, 4, "compare layer 1"))
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until_filled(pilot)
        await pilot.press("H", "t")
        await until(pilot, lambda: "test 1/4 compare layer 1" in screen_text(pilot))
        path.write_text(f"---\n{front.replace('UNTESTED', 'CONFIRMED')}\n---\n")
        processes[0].say(Answered("hypothesis 1: CONFIRMED"), None)
        await until(pilot, lambda: "1 CONFIRMED │" in screen_text(pilot))
        await pilot.press("T")
        await until(pilot, lambda: len(processes) == 2)
        processes[1].say(Refused("[b]no[/b] models"), None)
        await until(pilot, lambda: "no answer: [b]no[/b] models" in screen_text(pilot))
    assert [(inquiry.kind, inquiry.number) for inquiry in asked] == [("test", 1), ("test", None)]


async def test_a_note_proposes_what_the_bisection_suggests(session):
    keep(session, accusing("rows [b]permuted"), "DIVERGENT")
    app, _, _ = app_asking(session)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        screen.show_site(SPOILT)
        await pilot.press("a")
        await until(pilot, lambda: app.screen.query("#title"))
        await pilot.press("ctrl+n")
        first = app.screen.query_one("#prediction").text
        assert app.screen.query_one("#claim").text == "rows [b]permuted"
        await pilot.press("ctrl+n")
        second = app.screen.query_one("#prediction").text
        assert first != second
        for text in (first, second):
            read_prediction(text)
        await pilot.press("x", "ctrl+n")
        assert "Proposals only go into an empty form" in screen_text(pilot)
        assert app.screen.query_one("#prediction").text == second


def test_proposals_are_predictions_that_can_be_read():
    for site in (SPOILT, Site(None, "lm_head"), Site(0, "ffn_up")):
        for culprit in (SPOILT, Site(None, "lm_head"), None):
            accused = None if culprit is None else Culprit(culprit, "config", 'odd "name', "why", "t'x")
            found = Bisection(
                "divergent", culprit, accused, (), None, (checked(SPOILT).cell, checked(Site(0, "ffn_up")).cell)
            )
            proposed = proposals(site, found)
            assert proposed
            for each in proposed:
                assert each.title
                read_prediction(each.prediction)
