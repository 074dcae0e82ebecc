"""What makes a verdict stale, and nothing else."""

import json
import os
from pathlib import Path

import pytest

from store.whole_files import write_atomically
from tests.claims import CONTRACT, stale, write_claims
from workbench.__main__ import run
from workbench.capture.alone import trace_side
from workbench.demo import make_copy
from workbench.jobs.testing import try_session
from workbench.lab.retractions import retract
from workbench.lab.standing import board_of
from workbench.session.session import Session, Side


def test_nothing_is_stale_by_itself(session):
    assert stale(session) == set()
    (session.folder / "a.h5").touch()
    make_copy(session.folder / "again.apr", "permuted_rope")
    os.replace(session.folder / "again.apr", session.spec.b.path)  # the same bytes, another file
    assert stale(session) == set()


def test_files_that_must_be_hashed_first_say_how_far_it_is(session, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nothing-is-remembered-here"))
    told = []
    board_of(session, lambda done, total, what: told.append((done, total, what)))
    for side in (session.spec.a, session.spec.b):
        path = Path(side.path)
        size = path.stat().st_size
        assert (size, size, f"hash {path.name}") in told


def test_another_file_makes_stale_what_used_it(session):
    make_copy(Path(session.spec.b.path))
    assert stale(session) == {1, 2, 3, 4, 5}
    assert board_of(session).of(1).stale_because == "the file of B is not the one that was measured"
    write_claims(session, [2])
    text = (session.hypotheses_folder / "02-claim.md").read_text()
    (session.hypotheses_folder / "02-claim.md").write_text(text.replace('config("b"', 'config("a"'))
    try_session(session, 2, lambda *_: None)  # which uses A alone
    make_copy(Path(session.spec.b.path), "permuted_rope")
    assert stale(session) == set(), "the bytes that were measured are back"
    Path(session.spec.b.path).write_bytes(b"no model")
    assert stale(session) == {1, 3, 4, 5}


def test_other_tokens_make_stale_what_ran_them(session):
    spec = json.loads((session.folder / "session.json").read_text())
    write_atomically(session.folder / "session.json", json.dumps(spec | {"tokens": [1, 2, 3]}))
    assert stale(session) == {1, 3, 4}
    assert board_of(Session.open(session.folder)).of(3).stale_because == "other tokens are run"


def test_another_numeric_path_makes_stale_what_ran_on_it(session):
    spec = json.loads((session.folder / "session.json").read_text())
    spec["a"]["numeric_path"] = "f32"
    write_atomically(session.folder / "session.json", json.dumps(spec))
    assert stale(session) == {1, 3, 4}


def test_another_capture_makes_stale_what_was_read_from_it(session):
    side = Side(session.spec.a.path, "f64")
    trace_side(side, session.spec.tokens, None, session.folder / "a.h5", lambda _event: None)
    assert stale(session) == {1, 4}


def test_what_is_gone_is_unchecked_and_not_called_changed(session):
    for name in ("a.h5", session.spec.a.path):
        (session.folder / name).unlink()
    assert stale(session) == set()
    assert board_of(session).of(1).unchecked == ("a", "capture")


def test_another_contract_or_prediction_makes_stale_what_was_tested(session):
    (session.folder / "contract.yaml").write_text(CONTRACT.replace("0.999", "0.99"))
    assert stale(session) == {5}
    path = session.hypotheses_folder / "02-claim.md"
    path.write_text(path.read_text().replace('prediction: config("a"', 'prediction: 1 < 2 and config("a"', 1))
    assert stale(session) == {2, 3, 4, 5}
    assert board_of(session).of(2).stale_because == "what it predicts was changed since it was tested"


def test_a_retracted_capture_makes_stale_what_used_it_and_is_used_no_more(session):
    retraction = retract(session, "capture", "B ran with a stale cache")
    assert stale(session) == {1, 4}
    assert board_of(session).of(1).stale_because == "the capture was retracted: B ran with a stale cache"
    (found,) = try_session(session, 1, lambda *_: None)
    assert found.verdict is None
    assert "the capture was retracted: B ran with a stale cache; remove a.h5 and b.h5" in found.why
    retract(session, str(retraction.line), "it did not")
    assert stale(session) == set()
    retract(session, "capture", "it did")
    for name in ("a.h5", "b.h5"):
        (session.folder / name).unlink()
    (found,) = try_session(session, 1, lambda *_: None)  # captures anew
    assert found.verdict == "CONFIRMED"
    assert stale(session) == {4}, "it was tested on the old capture"


def test_a_retracted_line_makes_stale_what_rests_on_it(session):
    entries = session.numbered_entries()
    bisected = next(line for line, entry in entries.items() if entry["kind"] == "bisected")
    retract(session, str(bisected), "the floor was wrong")
    assert stale(session) == {3, 4}
    try_session(session, 3, lambda *_: None)
    assert stale(session) == set()
    assert max(n for n, entry in session.numbered_entries().items() if entry["kind"] == "bisected") > bisected
    of_two = next(n for n, entry in entries.items() if entry["kind"] == "tested" and entry["number"] == 2)
    retract(session, f"line {of_two}", "its prediction was too weak")
    assert stale(session) == {2, 3, 4}


def test_a_retracted_hypothesis_takes_its_chain_along_until_it_is_tested_again(session):
    retract(session, "hypothesis 2", "it asked the wrong thing")
    assert stale(session) == {2, 3, 4}
    assert "hypothesis 2, which it follows if FALSIFIED, is STALE" in board_of(session).of(3).stale_because
    try_session(session, 2, lambda *_: None)
    assert stale(session) == set()


@pytest.mark.parametrize(
    ("what", "why", "sentence"),
    [
        ("hypothesis 99", "x", "the session has no hypothesis 99"),
        ("hypothesis 8", "x", "hypothesis 8 has not been tested"),
        ("999", "x", "the log has no line 999; it has lines 1 to"),
        ("the weather", "x", "the weather is nothing to retract"),
        ("capture", " ", "a retraction says why"),
        ("\x1b[2J", "x", r"\x1b[2J is nothing to retract"),
    ],
)
def test_what_cannot_be_retracted_is_said_and_nothing_written(session, capsys, what, why, sentence):
    before = (session.folder / "log.jsonl").read_bytes()
    assert run(["retract", str(session.folder), what, "--why", why, "--json"]) == 2
    out, err = capsys.readouterr()
    assert sentence in json.loads(out)["error"]
    assert sentence in err
    assert (session.folder / "log.jsonl").read_bytes() == before
