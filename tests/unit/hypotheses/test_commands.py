"""`workbench hypotheses` and `retract` as a user meets them."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from tests.claims import CLAIMS, SCHEMA, write_claims
from workbench.__main__ import run
from workbench.jobs.testing import try_session
from workbench.lab.hypotheses import read
from workbench.lab.retractions import retract
from workbench.lab.standing import board_of


def test_exit_codes_and_json(session, capsys):
    folder = str(session.folder)
    for number, code in ((5, 0), (2, 1), (4, 1), (6, 2), (7, 2), (99, 2)):
        assert run(["hypotheses", folder, "--test", str(number), "--json"]) == code, number
        answer = json.loads(capsys.readouterr().out)
        jsonschema.validate(answer, SCHEMA)
        assert ("error" in answer) == (code == 2)
        if number < 7:
            assert [each["number"] for each in answer["tested"]] == [number]
    assert run(["hypotheses", folder, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    jsonschema.validate(answer, SCHEMA)
    (first, second, *_) = answer["hypotheses"]
    assert (first["number"], first["status"], first["value"], first["stale_because"]) == (1, "CONFIRMED", True, None)
    assert first["evidence"]["measured"]
    assert (second["status"], second["value"], len(second["history"])) == ("FALSIFIED", False, 2)
    assert run(["hypotheses", folder, "--test", "all"]) == 1
    out = capsys.readouterr().out
    assert "├─ if FALSIFIED: 3 CONFIRMED" in out
    assert "│  └─ if CONFIRMED: 4 PARTIAL" in out
    assert "└─ if CONFIRMED: 7 UNTESTED" in out
    assert "   no answer prediction: an opening bracket after" in out


def test_a_broken_file_is_reported_left_alone_and_the_others_are_tested(session, capsys):
    broken = session.hypotheses_folder / "09-broken.md"
    text = "---\ntitle: t\nclaim: c\nstatus: UNTESTED\nladder: {value: '1', confirmd: '> 5'}\n---\n"
    broken.write_text(text)
    for number in (6, 7, 8):
        (session.hypotheses_folder / f"{number:02d}-claim.md").unlink()
    assert run(["hypotheses", str(session.folder), "--test", "5", "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["tested"][0]["verdict"] == "CONFIRMED"
    assert answer["problems"] == [answer["error"]]
    assert (
        "hypotheses/09-broken.md, line 5: ladder has no confirmd; it has value, confirmed, partial" in answer["error"]
    )
    assert broken.read_text() == text


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        ("{hypothesis: 2, verdict: FALSIFIED}", "2", 7, "after is not a list of `name: value` fields"),
        ("{hypothesis: 2, verdict: FALSIFIED}", "{hypothesis: two, verdict: FALSIFIED}", 7, "is not the number"),
        ("{hypothesis: 2, verdict: FALSIFIED}", "{hypothesis: 2, verdict: STALE}", 7, "verdict 'STALE' is unknown"),
        ("{hypothesis: 2, verdict: FALSIFIED}", "{hypothesis: 2}", 7, "after has no field verdict"),
        ("after:", "history: 3\nafter:", 7, "history must be a list of tests"),
        ("after:", "layer: 3\nafter:", 7, "there is a layer and no stage"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_line(session, old, new, line, what):
    path = session.hypotheses_folder / "03-claim.md"
    write_claims(session, [3])
    path.write_text(path.read_text().replace(old, new))
    (problem,) = board_of(session).problems
    assert problem.startswith(f"hypotheses/03-claim.md, line {line}: ")
    assert what in problem


def test_chains_in_a_circle_are_drawn_and_never_due(session, capsys):
    for number, after in ((2, 4), (7, 7)):
        path = session.hypotheses_folder / f"{number:02d}-claim.md"
        text = re.sub("after: .*\n", "", path.read_text())
        path.write_text(text.replace("mine: stays", f"after: {{hypothesis: {after}, verdict: CONFIRMED}}"))
    assert run(["hypotheses", str(session.folder), "--test", "7"]) == 2
    assert "in a circle" in capsys.readouterr().err
    assert run(["hypotheses", str(session.folder)]) == 0
    out = capsys.readouterr().out
    assert all(f"Claim {number}" in out for number in CLAIMS)


def test_hostile_text_is_inert_everywhere(session, capsys):
    evil = "\x1b]0;x\x07 <script>alert(1)</script> [b]x[/b] ``` \u202e | `id`"
    path = session.hypotheses_folder / "10-evil.md"
    quoted = json.dumps(evil)
    front = f"title: {quoted}\nclaim: {quoted}\nstatus: UNTESTED\nprediction: {quoted}\nmetric: {quoted}"
    path.write_text(f"---\n{front}\n---\n{evil.replace(chr(27), '')}\n")
    other = session.hypotheses_folder / "11-evil.md"
    source = json.dumps(f'tensor("{evil}").rel_rms > 1 and lab("{evil}").x > 1 or rule("{evil}").verdict == "{evil}"')
    other.write_text(f"---\ntitle: {quoted}\nclaim: {quoted}\nstatus: UNTESTED\nprediction: {source}\n---\n")
    retract(session, "capture", evil)
    for number in ("10", "11"):
        assert run(["hypotheses", str(session.folder), "--test", number]) == 2
        out, err = capsys.readouterr()
        assert all(c.isprintable() for c in (out + err).replace("\n", ""))
    assert run(["export", str(session.folder)]) in (0, 1, 2)
    capsys.readouterr()
    findings = (session.folder / "findings.md").read_text()
    assert all(c.isprintable() for c in findings.replace("\n", ""))
    part = findings[findings.index("## Hypotheses") :]
    assert "<script>" not in re.sub(r"```+text\n.*?\n```+", "", part, flags=re.DOTALL)
    fence = re.search(r"^(`{3,})text\n.*?^\1$", part, re.DOTALL | re.MULTILINE)
    assert "Claim 1" in fence[0], "a fence in a title closes no block"


@pytest.mark.parametrize(
    "history",
    [
        "[{status: CONFIRMED}]",
        "[{status: [], time: {}, used: 3}]",
        "[{status: CONFIRMED, used: {1: 2, null: 3, line x: 1, contract ../../x: 1, line 99999999999999999999: 1}}]",
        "[{status: CONFIRMED, value: {a: [1]}, time: 5, why: 3, measured: 7, ladder: [], captured: {}}]",
        "[{status: CONFIRMED, used: {a: {}, capture: [], numeric_path_c: 1, tokens: .nan}}]",
    ],
)
def test_a_history_that_nobody_can_have_written_does_no_harm(session, capsys, history):
    front = f"title: t\nclaim: c\nstatus: CONFIRMED\nprediction: 1 < 2\nhistory: {history}"
    evidence = "evidence: {notes: 3, measured: [1, {what: [], value: {}}], a: {sha256: 3}, noted: [1]}"
    (session.hypotheses_folder / "09-odd.md").write_text(f"---\n{front}\n{evidence}\n---\n")
    retract(session, "capture", "x")
    assert run(["hypotheses", str(session.folder), "--json"]) == 0
    assert run(["hypotheses", str(session.folder)]) == 0
    assert run(["hypotheses", str(session.folder), "--test", "9"]) == 0
    assert len(read(session.hypotheses_folder / "09-odd.md").history) == 2


def test_a_model_that_is_gone_leaves_what_its_capture_shows(session):
    Path(session.spec.a.path).unlink()
    (found,) = try_session(session, 4, lambda *_: None)
    assert found.verdict == "PARTIAL"
    (found,) = try_session(session, 1, lambda *_: None)
    assert found.verdict is None
    assert "has no value" in found.why
