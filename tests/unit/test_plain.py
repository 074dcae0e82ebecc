"""The conversation of --plain: words go in on stdin, sentences come out, and it says what the app says."""

import io
import re

import pytest

from workbench.__main__ import run
from workbench.app.actions import ACTIONS
from workbench.cli.plain.investigation import Pace
from workbench.cli.plain.words import WORDS
from workbench.demo import demo_session
from workbench.jobs.bisected import last_bisection
from workbench.lab.shelf import shelf_of
from workbench.session.session import Session

# What the app does and a conversation has no use for: the layout of a screen, and pages that it never leaves.
ON_A_SCREEN_ONLY = {
    *("cancel", "resume", "pick_metric", "shift_token", "transpose", "move", "filter", "command_palette"),
    *("undo", "fold", "second", "copy", "tour"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The session of a demo whose q bias is zero in layer 3."""
    return tmp_path_factory.mktemp("plain") / "zeroed"


def talked(folder, words, monkeypatch, capsys, status=1):
    """The lines that are said to some words, with a fault that is found already or at the beginning."""
    demo_session("zeroed", 3, folder)
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{word}\n" for word in words)))
    capsys.readouterr()
    assert run(["open", str(folder), "--plain"]) == status
    out, err = capsys.readouterr()
    assert err == ""
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", out), "nothing that a terminal acts on"
    return out.splitlines()


def test_it_goes_to_the_culprit_and_ends_with_the_verdict_and_the_session(folder, monkeypatch, capsys):
    lines = talked(folder, ["where", "why", "quit", "never heard"], monkeypatch, capsys)
    headline = last_bisection(Session.open(folder)).headline
    assert lines.index(headline) < lines.index("You are at layer 3 qkv_bias.")
    assert "layer 3 qkv_bias. BROKEN: the verdict accuses this cell." in lines
    assert any(line.startswith("FIX: Convert the tensor again") for line in lines)
    assert "PROOF: not made yet; patch exchanges this part between A and B." in lines
    assert lines[-2:] == [f"verdict  {headline}", f"session  {folder}"]


def test_without_a_word_the_end_of_the_input_ends_it(folder, monkeypatch, capsys):
    lines = talked(folder, [], monkeypatch, capsys)
    assert lines[-1] == f"session  {folder}"
    assert "Looking for the first place that is really wrong." not in lines, "the verdict stands"


def test_words_move_over_the_cells_and_the_session_keeps_where(folder, monkeypatch, capsys):
    words = ["cell L2 ffn_gate", "after", "bef", "next", "metric rel_rms", "tokens last", "cell lm_head", "layer 1"]
    lines = talked(folder, words, monkeypatch, capsys)
    told = [line for line in lines if re.match(r"(layer \d \w+|lm_head)\. ", line)]
    places = [line.partition(".")[0] for line in told]
    assert places[:4] == ["layer 2 ffn_gate", "layer 2 ffn_up", "layer 2 ffn_gate", "layer 3 qkv_bias"]
    assert places[-1] == "lm_head"
    assert "Over last token (6): relative RMS 0.01067, std ratio A/B 0.9924, 1 - cosine 2.0e-05." in lines
    assert sum(line.startswith("layer 1 ") for line in lines) == 16
    view = Session.open(folder).spec.view
    assert (view["metric"], view["tokens"], view["cursor"]) == ("rel_rms", "last", [None, "lm_head"])


NOT_UNDERSTOOD = {
    "whre": "there is no word whre; did you mean where?",
    "ne\x1b[31mxt": r"there is no word ne\x1b[31mxt; did you mean next?",
    "n": "n is the beginning of next, note",
    "cell": "say which cell: cell L3 STAGE, or the stage alone where it belongs to no layer",
    "cell L3 ffn_gat": "there is no stage ffn_gat; did you mean ffn_gate?",
    "cell L99 ffn_gate": "ffn_gate is a stage of layers 0 to 5; say cell L0 ffn_gate",
    "layer 99": "say which layer, 0 to 5",
    "metric relrms": "there is no metric relrms; did you mean rel_rms?",
    "tokens 7": "say tokens all, tokens last, or a position from 0 to 6",
    "bytes": "say which element: bytes TOKEN CHANNEL, such as bytes 0 17; elements lists the worst",
    "test": "say test N for one hypothesis, or test all",
    "lab rowss": "lab has no experiment rowss; did you mean rows?",
    "note 99": "say note to write one, or note N for one of those that it proposes",
    "help nxt": "there is no word nxt; did you mean next?",
}


def test_what_it_does_not_understand_it_says_and_goes_on(folder, monkeypatch, capsys):
    lines = talked(folder, [*NOT_UNDERSTOOD, "session"], monkeypatch, capsys)
    assert [line for line in lines if line.startswith("No: ")] == [
        f"No: {answer}" for answer in NOT_UNDERSTOOD.values()
    ]
    assert f"The session is {folder}." in lines


def test_questions_are_answered_by_the_same_jobs(folder, monkeypatch, capsys):
    words = [
        "cell 3 qkv_bias",
        "tokens all",
        "patch",
        "why",
        "details",
        "parts",
        "elements 2",
        "local",
        "weights",
        "config",
        "summary",
    ]
    lines = talked(folder, words, monkeypatch, capsys)
    tensor = "model.layers.3.self_attn.q_proj.bias"
    assert f"Tensors exchanged: {tensor}" in lines
    assert any(line.startswith(f"PROOF: A's {tensor} put into B: KL falls by ") for line in lines)
    assert "DIVERGENT at layer 3 qkv_bias: zeroed (weights)." in lines
    assert any(line.startswith("tokens ") for line in lines)
    assert sum(line.startswith("token ") for line in lines) == 2
    assert "99 cells run again, 1 adds more than rounding can cause:" in lines
    assert "75 tensors: 74 identical, 1 outside the band." in lines
    assert "Both models have the same settings." in lines
    assert any(line.startswith("99 of 99 cells compared") for line in lines)


def test_notes_are_saved_whole_and_half_written_ones_are_kept(folder, monkeypatch, capsys):
    lines = talked(folder, ["cell 3 qkv_bias", "note", "My title", "my claim", ""], monkeypatch, capsys)
    assert "No: the prediction is empty, so it is no hypothesis yet; note goes on with what was written" in lines
    assert shelf_of(Session.open(folder)).hypotheses == []
    lines = talked(folder, ["note", "", "", "cell(3, 'qkv_bias').floors > 8", "note 1", "hyp"], monkeypatch, capsys)
    assert "There is a draft: title 'My title', claim 'my claim'. An empty line keeps what it has." in lines
    first, second = shelf_of(Session.open(folder)).hypotheses
    assert (first.title, first.claim, first.prediction) == ("My title", "my claim", "cell(3, 'qkv_bias').floors > 8")
    assert first.evidence["population"] == "all 7 tokens"
    assert second.title.startswith("zeroed: ")
    assert "1, UNTESTED about layer 3 qkv_bias: My title" in lines


def test_the_findings_are_written_and_a_foreign_file_is_not_replaced(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "own.md").write_text("mine")
    lines = talked(folder, ["export", f"export {tmp_path / 'own.md'}"], monkeypatch, capsys)
    assert any(str(folder / "findings.md") in line for line in lines)
    assert any(line.startswith("No: ") and "own.md" in line for line in lines)
    assert (tmp_path / "own.md").read_text() == "mine"


def test_a_pair_that_cannot_be_run_is_one_sentence_and_exit_code_2(folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("where\n"))
    copy = next(folder.glob("*.apr"))
    capsys.readouterr()
    for wrong in (["nowhere.gguf", str(copy)], [str(folder), "--json"], [str(copy)]):
        assert run(["open", *wrong, "--plain"]) == 2
        err = capsys.readouterr().err
        assert (err.startswith("workbench: "), err.count("\n")) == (True, 1)


def test_how_far_work_is_comes_in_sentences_now_and_then_with_the_time_left(monkeypatch):
    moments = iter([0.0, 1.0, 7.0, 8.0, 20.0, 21.0, 31.0])
    monkeypatch.setattr("time.monotonic", lambda: now)
    now = next(moments)
    pace, said = Pace(), []
    for each in (
        (0, 3, "open"),
        (3, 3, "open"),
        (0, 90, "run"),
        (1, 90, "run"),
        (2, 90, "run"),
        (11, 90, "run \x1b[2J"),
    ):
        now = next(moments)
        said.append(pace.sentence(*each))
    assert said == [
        None,
        "open: 3 of 3.",
        None,
        "run: 1 of 90, about 18 min left.",
        None,
        r"run \x1b[2J: 11 of 90, about 3 min left.",
    ]


def test_every_word_is_explained_and_whatever_the_map_can_do_has_one(folder, monkeypatch, capsys):
    lines = talked(folder, ["help"], monkeypatch, capsys)
    assert all(any(line.startswith(word.name) and line.endswith(word.does) for line in lines) for word in WORDS)
    done = {word.action for word in WORDS}
    of_app = {action.name.removeprefix("app.") for action in ACTIONS if action.screen in ("map", "cell")}
    names = {name.partition("(")[0] for name in of_app} - ON_A_SCREEN_ONLY
    of_cell = {"pop_screen", "cycle_order", "goto"}
    assert names - of_cell <= {name.partition("(")[0] for name in done}
