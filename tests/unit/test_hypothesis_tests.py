"""Tests of hypotheses: verdicts with what they rest on, what makes them stale, and that nothing is ever lost."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from store.whole_files import write_atomically
from workbench.__main__ import run
from workbench.capture.alone import trace_side
from workbench.cli.pair import run_session
from workbench.demo import demo_session, make_copy
from workbench.jobs.testing import try_session
from workbench.lab.contracts.reading import SHIPPED
from workbench.lab.hypotheses import read
from workbench.lab.measuring import PairMeasuring
from workbench.lab.predictions.errors import PredictionError
from workbench.lab.predictions.prediction import read_prediction
from workbench.lab.predictions.questions import ask
from workbench.lab.predictions.syntax import parse
from workbench.lab.retractions import retract
from workbench.lab.session_measurements import SessionMeasurements
from workbench.lab.standing import board_of
from workbench.lab.trial import Predicted
from workbench.session.session import Session, Side

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "workbench/schemas/hypotheses.schema.json").read_text())
V_PROJ = "model.layers.3.self_attn.v_proj.weight"

CLAIMS = {
    1: f"""prediction: >-
  cell(3, "qkv_matmul").rel_rms > 20 * cell(2, "qkv_matmul").rel_rms
  and tensor("{V_PROJ}").rel_rms == 0
layer: 3
stage: qkv_matmul""",
    2: """prediction: config("a", "rope_theta") != config("b", "rope_theta")""",
    3: """prediction: bisect().culprit.layer == 3 and bisect().culprit.factor == "weights"
after: {hypothesis: 2, verdict: FALSIFIED}""",
    4: """after: {hypothesis: 3, verdict: CONFIRMED}
ladder: {value: "cell(3, 'qkv_matmul').rel_rms", confirmed: "> 5", partial: "> 0.5"}""",
    5: """prediction: rule("v-rows").verdict == "met" """,
    6: """prediction: config("a", "sliding_window") > 10""",
    7: """prediction: 1 < 2
after: {hypothesis: 2, verdict: CONFIRMED}""",
    8: """prediction: the rows are permuted""",
}
VERDICTS = {1: "CONFIRMED", 2: "FALSIFIED", 3: "CONFIRMED", 4: "PARTIAL", 5: "CONFIRMED"} | dict.fromkeys(
    (6, 7, 8), "UNTESTED"
)
CONTRACT = f"""contract: contract
version: 1
rules:
  - id: v-rows
    tensors: "{V_PROJ}"
    metric: cosine
    at_least: 0.999
"""
NOTE = "Free *text*, and\n---\nanother rule.\n"


def write_claims(session: Session, numbers=CLAIMS) -> None:
    for number in numbers:
        front = f"title: Claim {number}\nclaim: because\nstatus: UNTESTED\nmine: stays\n{CLAIMS[number]}\n"
        (session.hypotheses_folder / f"{number:02d}-claim.md").write_text(f"---\n{front}---\n{NOTE}")


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    """The demo's session with every claim tested; its folder is not to be written to."""
    folder = tmp_path_factory.mktemp("tested") / "session"
    session = demo_session("permuted_rope", folder=folder)
    run_session(session)
    write_claims(session)
    (folder / "contract.yaml").write_text(CONTRACT)
    session.found = {each.number: each for each in try_session(session, None, lambda *_: None)}
    return session


@pytest.fixture
def session(tested, tmp_path):
    """A copy of it."""
    shutil.copytree(tested.folder, tmp_path / "session")
    return Session.open(tmp_path / "session")


def statuses(session: Session) -> dict[int, str]:
    return {each.number: each.status for each in board_of(Session.open(session.folder)).standings}


def stale(session: Session) -> set[int]:
    return {number for number, status in statuses(session).items() if status == "STALE"}


def of(session: Session, number: int):
    return read(session.hypotheses_folder / f"{number:02d}-claim.md")


# Verdicts


def test_every_claim_gets_the_verdict_that_is_measured(tested):
    assert statuses(tested) == VERDICTS
    assert {n: each.verdict for n, each in tested.found.items() if each.verdict} == {
        n: verdict for n, verdict in VERDICTS.items() if verdict != "UNTESTED"
    }
    assert tested.found[7].skipped
    assert "hypothesis 2, which it follows if CONFIRMED, is FALSIFIED" in tested.found[7].why
    assert "the model of A has none" in tested.found[6].why
    assert "at character 5" in tested.found[8].why
    assert tested.found[8].pointed == ("the rows are permuted", "    ^")


def test_the_evidence_says_what_was_measured_over_which_values_and_on_what(tested):
    evidence, log = of(tested, 1).evidence, tested.entries()
    first, second, third = evidence["measured"]
    assert first["what"] == 'cell(3, "qkv_matmul").rel_rms'
    assert 1 < first["value"] < 2
    assert first["population"] == "all 7 tokens"
    assert third == {"what": f'tensor("{V_PROJ}").rel_rms', "value": 0.0, "population": "all elements"}
    assert second["value"] < 0.01
    compared = next(entry for entry in log if entry["kind"] == "compared")
    for side, path in (("a", "ggml"), ("b", "apr")):
        assert evidence[side]["sha256"] == compared[side]["sha256"]
        assert evidence[side]["numeric_path"] == path
    assert evidence["tokens"] == compared["tokens"]
    assert set(evidence["used"]) == {"a", "b", "numeric_path_a", "numeric_path_b", "tokens", "capture"}
    assert set(of(tested, 2).evidence["used"]) == {"a", "b"}


def test_names_measure_what_the_commands_print(tested, capsys):
    """The commands answer from the models, the predictions from the session's capture."""
    spec, answers = tested.spec, {}
    sides = [spec.a.path, spec.b.path]
    tokens = ["--tokens", ",".join(map(str, spec.tokens))]
    commands = {"compare": [*sides, *tokens, "--local"], "weights": sides, "bisect": [*sides, *tokens], "lab": ["009"]}
    commands["check"] = ["parity", *sides, *tokens]
    for name, arguments in commands.items():
        run([name, *arguments, "--json"])
        answers[name] = json.loads(capsys.readouterr().out)
    cells = {(cell["layer"], cell["stage"]): cell for cell in answers["compare"]["cells"]}
    cell, logits = cells[3, "qkv_matmul"], cells[None, "lm_head"]
    (tensor,) = (each for each in answers["weights"]["tensors"] if each["name"].endswith("3.self_attn.q_proj.weight"))
    culprit = answers["bisect"]["culprit"]
    (weights,) = (rule for rule in answers["check"]["rules"] if rule["id"] == "weights")
    expected = {
        'cell(3, "qkv_matmul").max_abs': cell["max_abs"],
        'cell(3, "qkv_matmul").cosine': 1 - cell["one_minus_cosine"],
        'cell(3, "qkv_matmul").max_at.channel': cell["max_at"]["channel"],
        'cell(3, "qkv_matmul").percentiles_abs_d.p90': cell["percentiles_abs_d"]["p90"],
        'cell(3, "qkv_matmul").status': "ok",
        'cell(3, "qkv_matmul").local': cell["local"],
        'cell(3, "qkv_matmul").floors': cell["local"] / cell["floor"],
        'cell(3, "qkv_matmul").beyond_floor': True,
        "logits().kl": logits["logits"]["kl_b_a_mean"],
        "logits().top1": logits["logits"]["top1_agreement"],
        "logits().rel_rms": logits["rel_rms"],
        f'tensor("{tensor["name"]}").rel_rms': tensor["rel_rms"],
        f'tensor("{tensor["name"]}").type_b': tensor["type_b"],
        f'tensor("{tensor["name"]}").in_band': tensor["in_band"],
        'config("b", "hidden_size")': 256,
        "bisect().verdict": "divergent",
        "bisect().culprit.shares.weights": culprit["shares"]["weights"],
        "bisect().culprit.tensor": culprit["tensor"],
        'rule("parity/weights").verdict': weights["verdict"],
        'rule("parity/weights").measured': weights["measured"],
        'lab("009").growth': answers["lab"]["growth"],
    }
    measuring = PairMeasuring(tested, SessionMeasurements(tested), lambda: (answers["bisect"], 1))
    for text, value in expected.items():
        found = measuring.answer(ask(parse(text), text).question)
        if isinstance(value, float):
            assert found.value == pytest.approx(value, rel=1e-9), text
        else:
            assert found.value == value, text


def test_the_history_is_appended_to_and_what_a_hand_wrote_stays(session):
    before = of(session, 2).history
    try_session(session, 2, lambda *_: None)
    try_session(session, 6, lambda *_: None)
    after = of(session, 2)
    assert after.history[: len(before)] == before
    assert len(after.history) == len(before) + 1
    assert after.body == NOTE
    assert "mine: stays\n" in after.source
    assert [test["status"] for test in of(session, 6).history] == [None, None]
    tests = [entry for entry in session.entries() if entry["kind"] == "tested" and entry["number"] == 2]
    assert [entry["tested"] for entry in tests] == [test["time"] for test in after.history]


def test_a_note_keeps_what_the_map_showed_when_it_was_written(session):
    path = session.hypotheses_folder / "02-claim.md"
    path.write_text(f"---\ntitle: t\nclaim: c\nstatus: UNTESTED\nevidence: {{rel_rms: 0.5}}\n{CLAIMS[2]}\n---\n")
    for _ in range(2):
        try_session(session, 2, lambda *_: None)
        assert of(session, 2).evidence["noted"] == {"rel_rms": 0.5}


def test_a_status_by_hand_is_told_from_that_of_a_test(session):
    path = session.hypotheses_folder / "02-claim.md"
    path.write_text(path.read_text().replace("status: FALSIFIED\nmine", "status: CONFIRMED\nmine"))
    standing = board_of(session).of(2)
    assert (standing.by, standing.value) == ("hand", None)
    assert standing.words == "CONFIRMED (by hand; its test said FALSIFIED)"


# What makes a verdict stale, and nothing else


def test_nothing_is_stale_by_itself(session):
    assert stale(session) == set()
    (session.folder / "a.h5").touch()
    make_copy(session.folder / "again.apr", "permuted_rope")
    os.replace(session.folder / "again.apr", session.spec.b.path)  # the same bytes, another file
    assert stale(session) == set()


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


# The commands


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


# Nothing is lost

KILLED = """
import itertools, json, os, signal, sys
from pathlib import Path
from workbench.jobs.testing import try_session
from workbench.session.session import Session
from workbench.lab.hypotheses import load

folder = Path(sys.argv[1])
try_session(Session.open(folder), 2, lambda *_: None)  # loads everything, once for every child

def die_before(step):
    left = itertools.count(step, -1)
    def counted(function):
        def call(*arguments, **options):
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)
        return call
    for name in ("fsync", "replace", "unlink"):
        setattr(os, name, counted(getattr(os, name)))

killed, seen = 0, load(folder / "hypotheses").hypotheses
for turn in range(50):
    child = os.fork()
    if child == 0:
        die_before(turn % 10)
        try:
            try_session(Session.open(folder), 2, lambda *_: None)
        finally:
            os._exit(0)
    killed += os.waitpid(child, 0)[1] == signal.SIGKILL
    session = Session.open(folder)
    shelf = load(folder / "hypotheses")
    assert not shelf.problems, shelf.problems
    for before, after in zip(seen, shelf.hypotheses, strict=True):
        assert after.history[: len(before.history)] == before.history
        assert len(after.history) <= len(before.history) + 1
        assert (after.body, after.claim, after.title) == (before.body, before.claim, before.title)
        assert after.status == (after.last_test or {"status": "UNTESTED"})["status"]
    seen = shelf.hypotheses
    told = {entry["tested"] for entry in session.entries() if entry["kind"] == "tested" and entry["number"] == 2}
    kept = {test["time"] for test in next(each for each in seen if each.number == 2).history}
    assert told <= kept, "the log tells of no test that the history does not have"
print(json.dumps({"killed": killed, "tests": len(next(each for each in seen if each.number == 2).history)}))
"""


def test_fifty_kills_lose_no_note_verdict_or_history(session):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, session.folder], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout)
    assert 25 <= counted["killed"] < 50, "some are killed on the way, and some come to their end"
    assert counted["tests"] > 50 - counted["killed"]
    left = [path.name for path in session.hypotheses_folder.iterdir() if path.name.endswith(".tmp")]
    Session.open(session.folder)
    assert not [path for path in session.hypotheses_folder.iterdir() if path.name.endswith(".tmp")], left


MANY = """
import sys
from pathlib import Path
from workbench.jobs.testing import try_session
from workbench.lab.predictions.errors import PredictionError
from workbench.lab.predictions.prediction import read_prediction
from workbench.lab.retractions import retract
from workbench.session.session import Session
session = Session.open(Path(sys.argv[1]))
for turn in range(10):
    try_session(session, 2, lambda *_: None)
    retract(session, "hypothesis 2", f"{sys.argv[2]} {turn}")
"""


def test_two_processes_on_one_session_lose_and_mix_nothing(session):
    before, lines = of(session, 2).history, len((session.folder / "log.jsonl").read_bytes().splitlines())
    both = [subprocess.Popen([sys.executable, "-c", MANY, session.folder, name], cwd=ROOT) for name in "ab"]
    assert [each.wait() for each in both] == [0, 0]
    history = of(session, 2).history
    assert history[: len(before)] == before
    assert len(history) == len(before) + 20
    log = (session.folder / "log.jsonl").read_text().splitlines()[lines:]
    entries = [json.loads(line) for line in log]
    assert len(entries) == 40
    assert {e["tested"] for e in entries if e["kind"] == "tested"} == {test["time"] for test in history[len(before) :]}
    whys = [entry["why"] for entry in entries if entry["kind"] == "retracted"]
    assert sorted(whys) == sorted(f"{name} {turn}" for name in "ab" for turn in range(10))


def test_an_edit_during_a_test_is_not_overwritten(session, monkeypatch):
    path = session.hypotheses_folder / "02-claim.md"
    edited = path.read_text().replace("prediction: config(", "prediction: 1 < 2 or config(", 1)

    def editing(*_arguments):
        path.write_text(edited)
        return {}

    monkeypatch.setattr("workbench.jobs.testing._evidence", editing)
    assert run(["hypotheses", str(session.folder), "--test", "2"]) == 2
    assert path.read_text() == edited


def test_a_rule_of_two_contracts_is_named_with_its_contract(session):
    shipped = next(name for name in SHIPPED)
    (session.folder / "contract.yaml").write_text(SHIPPED[shipped].read_text())
    path = session.hypotheses_folder / "12-rule.md"
    ids = re.findall(r"id: (\S+)", SHIPPED[shipped].read_text())
    front = f'title: t\nclaim: c\nstatus: UNTESTED\nprediction: rule("{ids[0]}").verdict == "met"'
    path.write_text(f"---\n{front}\n---\n")
    (found,) = try_session(session, 12, lambda *_: None)
    assert found.verdict is None
    assert "more than one contract has a rule" in found.why


def test_the_documentation_shows_what_can_be_read(tmp_path):
    text = (ROOT / "docs/hypotheses.md").read_text()
    (example,) = re.findall(r"```markdown\n(.*?)```", text, re.DOTALL)
    (tmp_path / "01-example.md").write_text(example)
    shown = read(tmp_path / "01-example.md")
    assert Predicted.of(shown).steps
    assert (shown.after.hypothesis, shown.site.layer) == (2, 3)
    indented = re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    assert read_prediction(indented[0]).kind.type == "truth"
    with pytest.raises(PredictionError) as error:
        read_prediction('cell(3, "qkv_matmul").rel_rsm > 1')
    assert [f"prediction: {error.value}", *error.value.pointed] == [
        line.strip() if n < 2 else line[6:] for n, line in enumerate(indented[1].rstrip("\n").split("\n"))
    ]
