"""Tests of hypotheses: the verdict that is measured, and what it rests on."""

import json

import pytest

from tests.claims import CLAIMS, NOTE, V_PROJ, VERDICTS, of, statuses
from workbench.__main__ import run
from workbench.jobs.testing import try_session
from workbench.lab.measuring import PairMeasuring
from workbench.lab.predictions.questions import ask
from workbench.lab.predictions.syntax import parse
from workbench.lab.session_measurements import SessionMeasurements
from workbench.lab.standing import board_of


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
