"""`workbench check` as a user meets it: verdicts, JSON, exit codes, build servers."""

import json
import re
import shutil
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from kernels.stages import Site
from store.open import open_artifact
from tests.artifacts import tiny_model
from tests.contracts import HEAD, IDS, TOKENS, other, printed, row, rules
from tests.foreign_dumps import run as stages_of
from tests.foreign_dumps import write_aprt, write_stage_dump
from tests.gguf_files import write_gguf
from workbench.__main__ import run
from workbench.cells.metrics import METRICS
from workbench.cells.view import TokenScope
from workbench.cli.pair import run_session
from workbench.demo import MODEL, demo_session
from workbench.lab.measurements import Measurements
from workbench.lab.readings import OF_LOGITS
from workbench.lab.retractions import retract
from workbench.session.session import Session, SessionSpec, Side


@pytest.mark.parametrize("name", ["parity", "strict"])
def test_the_shipped_contracts_tell_a_healthy_copy_from_a_faulty_one(name, place, capsys):
    met = printed(capsys, 0, name, MODEL, place / "healthy.apr", *TOKENS)
    assert (met["verdict"], met["broken"]) == ("met", 0)
    assert (met["a"]["numeric_path"], met["b"]["numeric_path"]) == ("ggml", "apr")
    assert met["tokens"] == [int(token) for token in IDS.split(",")]
    broken = printed(capsys, 1, name, MODEL, place / "swapped.apr", *TOKENS)
    assert broken["verdict"] == "broken"
    assert broken["met"] + broken["broken"] == len(broken["rules"]) == met["met"]


def test_measured_values_are_those_of_the_worst_place_in_the_other_commands(place, capsys):
    pair = (MODEL, place / "swapped.apr")
    cells = other("compare", capsys, *pair, *TOKENS)["cells"]
    tensors = other("weights", capsys, *pair)["tensors"]
    file = rules(
        place,
        "id: gate, cells: {stage: ffn_gate}, metric: std_ratio, within: [0.99, 1.01]",
        'id: most, cells: {stage: "*"}, metric: rel_rms, at_most: 9',
        'id: floors, cells: {stage: "ffn_*", layers: "2-4"}, metric: floors, at_most: 8',
        'id: weights, tensors: "*.mlp.*", metric: cosine, at_least: 0.9',
        "id: first, coverage: tensors, at_least: 1",
        "id: verdict, bisect: [alike, numerics_only]",
    )
    found = {rule["id"]: rule for rule in printed(capsys, 1, file, *pair, *TOKENS)["rules"]}
    assert [rule["line"] for rule in found.values()] == [4, 5, 6, 7, 8, 9]

    def at(cell):
        return {"layer": cell["layer"], "stage": cell["stage"]}

    gate = [cell for cell in cells if cell["stage"] == "ffn_gate"]
    worst = max(gate, key=lambda cell: max(0.99 / cell["std_ratio"], cell["std_ratio"] / 1.01))
    assert (found["gate"]["measured"], found["gate"]["where"]) == (worst["std_ratio"], at(worst))
    assert (found["gate"]["compared"], found["gate"]["expected"], found["gate"]["bound"]) == (6, 6, "0.99 to 1.01")
    worst = max((cell for cell in cells if "rel_rms" in cell), key=lambda cell: cell["rel_rms"] or 0)
    assert (found["most"]["measured"], found["most"]["where"]) == (worst["rel_rms"], at(worst))
    chosen = [cell for cell in cells if cell["layer"] in (2, 3, 4) and cell["stage"].startswith("ffn_")]
    worst = max(chosen, key=lambda cell: cell["local"] / cell["floor"])
    assert found["floors"]["measured"] == pytest.approx(worst["local"] / worst["floor"], rel=1e-12)
    assert found["floors"]["where"] == at(worst)
    assert found["floors"]["expected"] == len(chosen)
    worst = max((t for t in tensors if ".mlp." in t["name"]), key=lambda tensor: tensor["one_minus_cosine"])
    assert found["weights"]["measured"] == 1 - worst["one_minus_cosine"]
    assert found["weights"]["where"] == {"tensor": worst["name"]}
    assert found["verdict"]["measured"] == "divergent"
    assert found["verdict"]["where"] == {"layer": 3, "stage": "ffn_gate"}
    assert "gate_up_swapped" in found["verdict"]["note"]


def test_logits_are_judged_token_by_token(place, capsys):
    pair = (MODEL, place / "swapped.apr")
    cells = other("compare", capsys, *pair, *TOKENS)["cells"]
    whole = cells[-1]["logits"]
    file = rules(
        place,
        "id: kl, logits: {positions: all}, metric: kl, at_most: 1e9",
        "id: top, logits: {}, metric: top1, at_least: 0",
        "id: last, logits: {positions: last}, metric: rel_rms, at_most: 1e9",
        "id: all, logits: {positions: all}, metric: rel_rms, at_most: 1e9",
    )
    kl, top, last, every = printed(capsys, 0, file, *pair, *TOKENS)["rules"]
    assert kl["measured"] == whole["kl_b_a_max"]
    assert top["measured"] == whole["top1_agreement"]
    assert (last["where"], last["expected"]) == ({"token": 6}, 1)
    each = [
        other("compare", capsys, *pair, *TOKENS, "--scope", n, "--no-local")["cells"][-1]["rel_rms"] for n in (0, 6)
    ]
    assert last["measured"] == each[1]
    assert (every["measured"] >= max(each), every["compared"], every["expected"]) == (True, 7, 7)


def test_whatever_compare_measures_of_the_logits_can_be_bounded(place, capsys):
    pair = (MODEL, place / "swapped.apr")
    whole = other("compare", capsys, *pair, *TOKENS, "--no-local")["cells"][-1]
    last = other("compare", capsys, *pair, *TOKENS, "--no-local", "--scope", "last")["cells"][-1]
    assert set(whole["logits"]) <= set(OF_LOGITS), "a new key of compare's is forgotten here"
    figures = {key: value for key, value in (whole | whole["logits"]).items() if key in OF_LOGITS}
    figures = {key: value for key, value in figures.items() if value is not None}  # steps across zero are none
    lines = [f"id: {key}, logits: {{positions: last}}, metric: {key}, within: [-1e30, 1e30]" for key in figures]
    lines += [f"id: over-{key}, logits: {{}}, metric: {key}, within: [-1e30, 1e30]" for key in whole["logits"]]
    found = {rule["id"]: rule for rule in printed(capsys, 0, rules(place, *lines), *pair, *TOKENS)["rules"]}
    at_last = last | last["logits"]
    assert {key: found[key]["measured"] for key in figures} == {key: at_last[key] for key in figures}
    for key, value in whole["logits"].items():
        over = found[f"over-{key}"]
        assert (over["measured"], over["compared"], over["expected"]) == (value, 7, 7), key
    assert whole["logits"]["kl_b_a_mean"] < whole["logits"]["kl_b_a_max"]


def test_measurements_have_the_names_and_values_of_json(place, capsys):
    pair = (MODEL, place / "swapped.apr")
    tokens = tuple(map(int, IDS.split(",")))
    measured = Measurements(pair, tokens=tokens)
    (cell,) = [
        cell
        for cell in other("compare", capsys, *pair, *TOKENS, "--scope", "2")["cells"]
        if (cell["layer"], cell["stage"]) == (3, "ffn_swigl")
    ]
    found = {key: measured.cell(Site(3, "ffn_swigl"), key, TokenScope("one", 2)).value for key in METRICS}
    assert found == {key: cell[key] for key in METRICS}
    verdict = other("bisect", capsys, *pair, *TOKENS)
    for key in ("verdict", "first_divergent", "cells_checked", "culprit"):
        assert measured.bisected(key).value == verdict[key]
    assert measured.bisected("mood") == (None, "a bisection has no mood")
    assert measured.cell(Site(9, "ffn_swigl"), "rel_rms") == (None, "neither side has layer 9 ffn_swigl")
    assert measured.cell(Site(3, "ffn_swigl"), "rms", TokenScope("one", 9)).value is None
    assert measured.tensor("model.nope", "rms") == (None, "neither side has it")


def test_only_what_the_rules_need_is_computed(small, tmp_path, monkeypatch, capsys):
    def never(*_arguments, **_options):
        raise AssertionError("this was not needed")

    file = rules(
        tmp_path,
        'id: w, tensors: "*", metric: rel_rms, equals: 0',
        'id: c, config: "*", equals: both',
        "id: t, coverage: tensors, at_least: 1",
    )
    monkeypatch.setattr("workbench.capture.comparing.compare_pair", never)
    monkeypatch.setattr("workbench.bisect.pair.bisect_pair", never)
    record = printed(capsys, 0, file, small / "a", small / "b.gguf")  # and no tokens are needed
    assert (record["tokens"], record["a"]["numeric_path"]) == (None, None)
    file = rules(tmp_path, "id: cells, cells: {stage: ffn_gate}, metric: rel_rms, at_most: 1")
    record = other("check", capsys, file, small / "a", small / "b.gguf")
    assert record["error"] == "there is nothing to run; give --tokens 1,2,3 or --prompt TEXT"
    monkeypatch.undo()
    monkeypatch.setattr("workbench.bisect.pair.bisect_pair", never)
    monkeypatch.setattr("workbench.bisect.models.views.views", never)
    assert row(capsys, 0, file, small / "a", small / "b.gguf", "--tokens", "1,2,3")["verdict"] == "met"


def test_settings_are_alike_but_for_the_digits_that_formats_keep(small, place, tmp_path, capsys):
    file = rules(tmp_path, "id: eps, config: rms_norm_eps, equals: both")
    assert row(capsys, 0, file, small / "a", small / "b.gguf")["verdict"] == "met"
    found = row(capsys, 1, file, MODEL, place / "eps.apr")
    assert found["measured"]["b"] == pytest.approx(1e-3)
    assert found["where"] == {"setting": "rms_norm_eps"}
    assert row(capsys, 1, rules(tmp_path, "id: eps, config: rms_norm_eps, at_most: 1e-4"), MODEL, place / "eps.apr")
    assert row(capsys, 0, rules(tmp_path, "id: eps, config: rope_type, equals: neox"), MODEL, place / "eps.apr")


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("cells: {stage: ffn_swiglu}, metric: rel_rms, at_most: 1", "no stage there is called ffn_swiglu"),
        ("cells: {stage: [ffn_gate, nope]}, metric: rel_rms, at_most: 1", "no stage there is called nope"),
        ("cells: {stage: lm_head, layers: last}, metric: rel_rms, at_most: 1", "no stage there is called lm_head"),
        ("cells: {stage: q_norm}, metric: rel_rms, at_most: 1", "no stage there is called q_norm"),  # of no qwen2
        ("cells: {stage: ffn_gate, layers: [0, 2]}, metric: rel_rms, at_most: 1", "there is no layer 2; the last one"),
        ('tensors: "model.layers.9.*", metric: cosine, at_least: 0', "no tensor is called model.layers.9.*"),
        ("config: rms_eps, equals: both", "no setting is called rms_eps"),
    ],
)
def test_a_rule_that_matches_nothing_is_never_met(rule, words, small, tmp_path, capsys):
    found = row(capsys, 2, rules(tmp_path, f"id: a, {rule}"), small / "a", small / "b.gguf", "--tokens", "1,2")
    assert (found["verdict"], found["compared"], found["expected"]) == ("unmatched", 0, 0)
    assert words in found["note"]


def test_what_is_broken_outweighs_what_is_open(place, tmp_path, capsys):
    file = rules(
        tmp_path,
        "id: a, cells: {stage: nope}, metric: rel_rms, at_most: 1",
        "id: b, cells: {stage: ffn_gate}, metric: rel_rms, at_most: 1e-9",
    )
    record = printed(capsys, 1, file, MODEL, place / "swapped.apr", *TOKENS)
    assert (record["verdict"], record["broken"], record["unmatched"]) == ("broken", 1, 1)


def test_values_that_are_no_numbers_are_never_met(tmp_path, capsys):
    model = tiny_model("llama")
    name = "model.layers.0.mlp.gate_proj.weight"
    values = model.values()[name].copy()
    values[3, 5] = np.nan
    lost = replace(model.weights[name], stored=values.view(np.uint8))
    write_gguf(tmp_path / "a.gguf", model)
    write_gguf(tmp_path / "nan.gguf", replace(model, weights=model.weights | {name: lost}))
    file = rules(
        tmp_path,
        'id: w, tensors: "*.gate_proj.weight", metric: cosine, at_least: -1',
        "id: c, cells: {stage: ffn_gate}, metric: rel_rms, at_most: 1e9",
        "id: l, logits: {}, metric: kl, at_most: 1e9",
        "id: t, logits: {}, metric: top1, at_least: 0",
        'id: n, tensors: "*", metric: nonfinite_b, equals: 0',
    )
    for a, b, status in (("a", "nan", 1), ("nan", "nan", 1)):  # alike or not
        record = printed(capsys, status, file, tmp_path / f"{a}.gguf", tmp_path / f"{b}.gguf", "--tokens", "1,2")
        *others, counted = record["rules"]
        assert {rule["verdict"] for rule in others} == {"unmeasured"}
        assert {rule["measured"] for rule in others} == {None}
        assert all(rule["compared"] < rule["expected"] or rule["expected"] == 0 for rule in others)
        assert (counted["verdict"], counted["measured"], counted["where"]) == ("broken", 1, {"tensor": name})


def test_steps_across_zero_are_not_measured_and_are_said_wherever_they_stand(tmp_path, capsys):
    model = tiny_model("llama")
    name = "model.layers.0.mlp.gate_proj.weight"
    values = model.values()[name].copy()
    values[3] *= -1
    turned = replace(model.weights[name], stored=values.view(np.uint8))
    write_gguf(tmp_path / "a.gguf", model)
    write_gguf(tmp_path / "b.gguf", replace(model, weights=model.weights | {name: turned}))
    pair = (tmp_path / "a.gguf", tmp_path / "b.gguf")
    file = rules(tmp_path, 'id: w, tensors: "*.gate_proj.weight", metric: max_ulp, at_most: 4')
    found = row(capsys, 2, file, *pair, "--tokens", "1,2")
    assert (found["verdict"], found["measured"], found["where"]) == ("unmeasured", None, {"tensor": name})
    assert "other sign" in found["note"]
    (tensor,) = (each for each in other("weights", capsys, *pair)["tensors"] if each["name"] == name)
    assert (tensor["max_ulp"], tensor["words"]) == (None, {"max_ulp": "other sign"})
    cells = other("compare", capsys, *pair, "--tokens", "1,2")["cells"]
    (gate,) = (cell for cell in cells if (cell["layer"], cell["stage"]) == (0, "ffn_gate"))
    assert (gate["max_ulp"], gate["note"]) == (None, "max_ulp: other sign")


def test_what_was_not_recorded_is_never_met(small, tmp_path, capsys):
    tokens = (1, 5, 2, 9)
    stages = stages_of(open_artifact(small / "b.gguf"), tokens, "f32")
    del stages[Site(1, "ffn_gate")]
    write_stage_dump(tmp_path / "t.npz", stages, {"tokens": list(tokens)})
    pair = (small / "a", tmp_path / "t.npz", "--tokens", "1,5,2,9", "--path-a", "f32")
    found = row(capsys, 2, rules(tmp_path, "id: a, cells: {stage: ffn_gate}, metric: rel_rms, at_most: 1e9"), *pair)
    assert (found["verdict"], found["measured"], found["where"]) == (
        "unmeasured",
        None,
        {"layer": 1, "stage": "ffn_gate"},
    )
    assert (found["compared"], found["expected"]) == (1, 2)
    found = row(capsys, 1, rules(tmp_path, "id: a, coverage: cells, at_least: 1"), *pair)
    assert (found["compared"], found["where"]) == (found["expected"] - 1, {"layer": 1, "stage": "ffn_gate"})
    assert found["measured"] == found["compared"] / found["expected"]
    found = row(capsys, 2, rules(tmp_path, 'id: a, config: "rms*", equals: both'), *pair)
    assert "B is a trace that does not carry the settings of its model" in found["note"]
    for rule in ('tensors: "*", metric: cosine, at_least: -1', "coverage: tensors, at_least: 0"):
        found = row(capsys, 2, rules(tmp_path, f"id: a, {rule}"), *pair)
        assert (found["verdict"], found["compared"]) == ("unmeasured", 0)
        assert "B is a recorded trace, which holds no weights" in found["note"]


def test_logits_of_the_last_token_only_are_compared_there(small, tmp_path, capsys):
    write_aprt(tmp_path / "t", stages_of(open_artifact(small / "b.gguf"), (1, 5, 2, 9), "f32"))
    pair = (small / "a", tmp_path / "t", "--tokens", "1,5,2,9")
    found = row(capsys, 0, rules(tmp_path, "id: a, logits: {positions: last}, metric: kl, at_most: 1e-6"), *pair)
    assert (found["where"], found["compared"], found["expected"]) == ({"token": 3}, 1, 1)
    found = row(capsys, 2, rules(tmp_path, "id: a, logits: {positions: all}, metric: kl, at_most: 1e-6"), *pair)
    assert found["verdict"] == "unmeasured"
    assert "align both to the last token" in found["note"]


def test_traces_have_floors_with_their_model_and_none_with_each_other(place, capsys):
    floors = rules(place, 'id: a, cells: {stage: "*"}, metric: floors, at_most: 8')
    assert row(capsys, 0, floors, place / "a.h5", place / "healthy.apr")["compared"] == 99
    found = row(capsys, 1, floors, place / "a.h5", place / "swapped.apr")
    assert found["where"] == {"layer": 3, "stage": "ffn_gate"}
    found = row(capsys, 2, floors, place / "a.h5", place / "a.h5")
    assert (found["verdict"], found["compared"], found["expected"]) == ("unmeasured", 0, 99)


def test_models_that_are_no_copies_are_not_met(small, tmp_path, capsys):
    write_gguf(tmp_path / "deep.gguf", tiny_model("qwen2", layers=3))
    pair = (small / "a", tmp_path / "deep.gguf", "--tokens", "1,2")
    file = rules(
        tmp_path,
        'id: a, cells: {stage: "*"}, metric: rel_rms, at_most: 1e9',
        'id: f, cells: {stage: "*"}, metric: floors, at_most: 1e9',
        "id: b, bisect: [alike, divergent]",
        'id: t, tensors: "*", metric: cosine, at_least: -1',
    )
    assert printed(capsys, 2, file, *pair)["unmeasured"] == 4
    assert row(capsys, 1, rules(tmp_path, "id: c, config: num_hidden_layers, equals: both"), *pair[:2])


def test_a_session_is_checked_as_its_pair(tmp_path, capsys):
    session = demo_session("gate_up_swapped", folder=tmp_path / "session")
    before = sorted(path.name for path in session.folder.iterdir())
    record = printed(capsys, 1, "parity", session.folder)
    assert record["tokens"] == list(session.spec.tokens)
    assert sorted(path.name for path in session.folder.iterdir()) == before
    assert "a session has its own tokens" in other("check", capsys, "parity", session.folder, "--tokens", "1")["error"]
    assert "demo is no session; give CONTRACT A B" in other("check", capsys, "parity", "demo")["error"]
    same = other("check", capsys, "parity", "a", "b", "--junit", tmp_path / "x", "--learn", tmp_path / "x")["error"]
    assert "--junit and --learn name the same file" in same
    spec = session.folder / "session.json"
    spec.write_text(spec.read_text().replace('"ggml"', '"fast"'))
    assert "numeric path 'fast' is not known" in other("check", capsys, "parity", session.folder)["error"]


@pytest.fixture(scope="module")
def captured(place, tmp_path_factory):
    """A session beside its two models, captured; not to be written to."""
    folder = tmp_path_factory.mktemp("captured")
    for name, source in (("a.gguf", MODEL), ("b.apr", place / "swapped.apr")):
        (folder / name).write_bytes(source.read_bytes())
    a, b = Side(str(folder / "a.gguf"), "ggml"), Side(str(folder / "b.apr"), "apr")
    session = Session.create(folder / "session", SessionSpec(a, b, tuple(map(int, IDS.split(",")))))
    run_session(session)
    return folder


@pytest.fixture
def session(captured, tmp_path):
    """A copy of it; its sides are named where they were."""
    for name in ("a.gguf", "b.apr"):
        shutil.copy2(captured / name, tmp_path / name)
    shutil.copytree(captured / "session", tmp_path / "session")
    spec = tmp_path / "session" / "session.json"
    spec.write_text(spec.read_text().replace(str(captured), str(tmp_path)))
    return Session.open(tmp_path / "session")


CELLS = (
    'id: c, cells: {stage: "*"}, metric: rel_rms, at_most: 0.5',
    "id: l, logits: {}, metric: kl, at_most: 1e9",
    "id: n, coverage: cells, at_least: 1",
)


def content(folder):
    """What lies in a session, but for the log, which keeps what became of the contract."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "log.jsonl"}


def notes_of(record, words):
    return [note for note in record["notes"] if words in note]


def test_what_a_session_has_captured_is_read_and_gives_the_same_figures(session, place, tmp_path, capsys, monkeypatch):
    file = rules(tmp_path, *CELLS, 'id: t, tensors: "*", metric: cosine, at_least: -1')
    pair = printed(capsys, 1, file, MODEL, place / "swapped.apr", *TOKENS)
    before = content(session.folder)
    monkeypatch.setattr("workbench.capture.lockstep.forward", None)
    record = printed(capsys, 1, file, session.folder)
    assert record["rules"] == pair["rules"]
    assert [record[side]["sha256"] for side in "ab"] == [pair[side]["sha256"] for side in "ab"]
    assert len(notes_of(record, "Cells and logits are those that the session captured on 20")) == 1
    assert content(session.folder) == before


def test_a_session_whose_models_have_moved_is_checked_by_its_capture(session, tmp_path, capsys):
    (tmp_path / "b.apr").unlink()
    file = rules(tmp_path, *CELLS)
    record = printed(capsys, 1, file, session.folder)
    assert record["rules"][0]["where"]["layer"] == 3
    assert notes_of(record, "b.apr is gone; of B only what the session recorded is there")
    assert record["b"]["path"] == str(session.folder / "b.h5")
    (tmp_path / "a.gguf").unlink()
    assert printed(capsys, 1, file, session.folder)["rules"] == record["rules"]
    found = row(capsys, 2, rules(tmp_path, 'id: t, tensors: "*", metric: cosine, at_least: -1'), session.folder)
    assert (found["verdict"], found["measured"]) == ("unmeasured", None)
    retract(session, "capture", "wrong cache")
    why = "a.gguf does not exist, and the session's capture cannot stand for it: the capture was retracted: wrong cache"
    assert why in other("check", capsys, file, session.folder)["error"]


def test_a_capture_of_other_files_paths_or_tokens_is_not_used_and_that_is_said(session, place, tmp_path, capsys):
    def why(status=0):
        record = printed(capsys, status, rules(tmp_path, *CELLS), session.folder)
        (note,) = notes_of(record, "The session's capture was not used: ")
        return note.partition(": ")[2]

    swapped = (tmp_path / "b.apr").read_bytes()
    (tmp_path / "b.apr").write_bytes((place / "healthy.apr").read_bytes())
    before = content(session.folder)
    assert why() == "the file of B is not the one that was captured; both sides were run."
    assert content(session.folder) == before
    (tmp_path / "b.apr").write_bytes(swapped)
    spec = session.folder / "session.json"
    text = spec.read_text()
    spec.write_text(text.replace('"ggml"', '"f32"'))
    assert why(1) == "A was captured on path ggml; both sides were run."
    spec.write_text(text.replace("310,", "311,"))
    assert why(1) == "A was captured on other tokens; both sides were run."
    spec.write_text(text)
    retract(session, "capture", "wrong cache")
    assert why(1) == "the capture was retracted: wrong cache; both sides were run."
    (session.folder / "b.h5").unlink()
    assert why(1) == "it is not complete; both sides were run."


HOSTILE = "##[error]x::warning::\\e[31m<b>&\\\"']]>\\u202e[red]\\r\\n::set-output name=x::y%0A"


def test_hostile_text_stays_text_wherever_it_goes(small, tmp_path, capsys):
    file = rules(
        tmp_path,
        f'id: a, tensors: "{HOSTILE}", metric: cosine, at_least: 0',
        f'id: b, config: rope_type, equals: "{HOSTILE}"',
    )
    report = tmp_path / "out.xml"
    command = ["check", str(file), str(small / "a"), str(small / "b.gguf"), "--annotations", "github"]
    assert run([*command, "--junit", str(report)]) == 1
    out, err = capsys.readouterr()
    for line in (out + err).split("\n"):
        assert line.isprintable()
        assert "##[" not in line
        assert not re.match(r"\s*::(?!error )", line)
    commands = [line for line in out.splitlines() if line.startswith("::")]
    assert [runner_reads(line)["line"] for line in commands] == ["4", "5"]
    root = ElementTree.parse(report).getroot()
    assert [case.get("name") for case in root.iter("testcase")] == ["a", "b"]
    assert not list(root.iter("b"))
    assert run([*command, "--json"]) == 1
    out, err = capsys.readouterr()
    assert "##[" not in out + err
    assert "##[error]x" in json.loads(out)["rules"][0]["note"]
    assert err.count("\n") == len(commands)  # the commands, as stdout is for the object
    file.write_text(HEAD + f'  - {{id: a, "{HOSTILE}": 1}}\n')
    assert run(command) == 2
    out, err = capsys.readouterr()
    assert err.startswith("workbench: ")
    assert err[:-1].isprintable()
    assert "##[" not in err


def runner_reads(line):
    """A workflow command as GitHub's runner takes it apart: its properties and its message."""
    info, message = re.fullmatch(r"::error (.*?)::(.*)", line).groups()

    def plain_text(text, *escapes):
        for escape, character in (*escapes, ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
            text = text.replace(escape, character)
        return text

    pairs = (part.split("=", 1) for part in info.split(","))
    found = {name: plain_text(value, ("%3A", ":"), ("%2C", ",")) for name, value in pairs}
    return found | {"message": plain_text(message)}


def test_a_build_server_is_told_every_rule(place, tmp_path, capsys):
    file = rules(
        tmp_path,
        "id: gate, cells: {stage: ffn_gate}, metric: rel_rms, at_most: 1e-3",
        "id: open, cells: {stage: nope}, metric: rel_rms, at_most: 1",
        "id: fine, coverage: cells, at_least: 1",
    )
    report, odd = tmp_path / "out.xml", tmp_path / "a,b: 100%.yaml"
    odd.write_text(file.read_text())
    command = ["check", str(odd), str(MODEL), str(place / "swapped.apr"), *TOKENS, "--junit", str(report)]
    assert run([*command, "--annotations", "github"]) == 1
    gate, nope = [runner_reads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("::")]
    assert (gate["file"], gate["line"], gate["title"]) == (str(odd), "4", "c: gate broken")
    assert "measured 1.676 at layer 3 ffn_gate" in gate["message"]
    assert nope["message"].startswith("open is unmatched: at most 1")
    suite = ElementTree.parse(report).getroot().find("testsuite")
    assert [suite.get(name) for name in ("tests", "failures", "errors")] == ["3", "1", "1"]
    assert [child.tag for child in suite] == ["properties", *["testcase"] * 3, "system-out", "system-err"]
    assert {"id", "package", "name", "timestamp", "hostname", "time"} <= set(suite.keys())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp"))
    cases = suite.findall("testcase")
    assert [[(child.tag, child.get("type")) for child in case] for case in cases] == [
        [("failure", "broken")],
        [("error", "unmatched")],
        [],
    ]
    assert run(command) == 2  # the report is there
    assert "--force" in capsys.readouterr().err
    assert run([*command, "--force"]) == 1


def test_a_shipped_contract_is_annotated_without_a_file(place, capsys):
    run(["check", "parity", str(MODEL), str(place / "swapped.apr"), *TOKENS, "--annotations", "github"])
    commands = [line for line in capsys.readouterr().out.splitlines() if line.startswith("::")]
    assert commands
    assert all("file" not in runner_reads(line) for line in commands)


def test_the_table_fits_eighty_columns(place, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("parity", "strict"):
        run(["check", name, str(MODEL), str(place / "swapped.apr"), *TOKENS])
        table = capsys.readouterr().out.split("\n\n")[1]
        assert all(len(line) <= 80 for line in table.splitlines())
