"""Contracts that are learnt from a healthy pair."""

import numpy as np

from tests.contracts import IDS, TOKENS, other, printed, rules
from tests.faults.models import plain
from tests.faults.storing import FORMATS, stored, write
from tests.faults.weight_faults import WEIGHT_FAULTS, plant
from workbench.__main__ import run
from workbench.demo import MODEL
from workbench.lab.contracts.learning import learn
from workbench.lab.contracts.reading import parse
from workbench.lab.measurements import Measurements

LEARNT_FROM = ("llama-mha", "st-f32", "gguf-q8_0")
CLEAR = ("scaled 1.1", "zeroed head", "permuted_rope to pairs", "corrupted one block", "wrong_layer next")


def healthy(folder):
    name, a, b = LEARNT_FROM
    model = plain(name)
    return [
        write(stored(model, FORMATS[format]), FORMATS[format], folder / side) for side, format in (("a", a), ("b", b))
    ]


def test_a_learnt_contract_is_met_on_other_prompts_and_broken_by_faults(tmp_path, capsys):
    a, b = healthy(tmp_path)
    model, format = plain(LEARNT_FROM[0]), FORMATS[LEARNT_FROM[2]]
    out = tmp_path / "learnt.yaml"
    ids = ",".join(map(str, model.tokens()))
    record = printed(capsys, 0, a, b, "--tokens", ids, "--learn", out)
    assert record["learnt"]["rules"] > 20
    rng = np.random.default_rng(0)
    for count in (1, 4, 19):
        others = ",".join(map(str, rng.integers(0, model.config.vocab_size, count)))
        assert printed(capsys, 0, out, a, b, "--tokens", others)["verdict"] == "met"
    for seed, kind in enumerate(CLEAR):
        fault = next(fault for fault in WEIGHT_FAULTS if fault.kind == kind)
        name = f"model.layers.1.{fault.suffixes[0]}"
        faulty = plant(stored(model, format), model, format, fault, name, seed)
        copy = write(faulty, format, tmp_path / f"faulty-{seed}")
        record = printed(capsys, 1, out, a, copy, "--tokens", ids)
        assert {rule["id"] for rule in record["rules"] if rule["verdict"] == "broken"} - {"verdict"}


def test_nothing_is_learnt_from_a_pair_that_is_not_healthy(place, tmp_path, capsys):
    out = tmp_path / "learnt.yaml"
    record = other("check", capsys, MODEL, place / "swapped.apr", *TOKENS, "--learn", out)
    assert "the bisection of this one is divergent at layer 3 ffn_gate (gate_up_swapped)" in record["error"]
    assert run(["trace", str(place / "healthy.apr"), "-o", str(tmp_path / "b.h5"), "--tokens", IDS]) == 0
    record = other("check", capsys, place / "a.h5", tmp_path / "b.h5", "--learn", out)
    assert "the bisection of this one is undecided" in record["error"]
    assert not out.exists()


def test_learning_replaces_nothing_unasked_and_never_the_contract(small, tmp_path, capsys):
    file = rules(tmp_path, "id: a, coverage: tensors, at_least: 1")
    pair = (small / "a", small / "b.gguf", "--tokens", "1,2,3")
    assert "is one of the files" in other("check", capsys, file, *pair, "--learn", file, "--force")["error"]
    (tmp_path / "out.yaml").write_text("mine")
    assert "--force" in other("check", capsys, file, *pair, "--learn", tmp_path / "out.yaml")["error"]
    assert (tmp_path / "out.yaml").read_text() == "mine"
    assert printed(capsys, 0, file, *pair, "--learn", tmp_path / "out.yaml", "--force")["met"] == 1
    assert (tmp_path / "out.yaml").read_text().startswith("# Learnt from a pair")


def test_names_of_tensors_that_are_patterns_are_learnt_as_names(small, monkeypatch):
    pair = Measurements((small / "a", small / "b.gguf"), tokens=(1, 2, 3))
    monkeypatch.setattr(pair, "tensor_names", ["odd[1]*?\x1b##[error]"])
    monkeypatch.setattr(pair, "tensor", lambda name, key: type("R", (), {"value": 0.25})())
    monkeypatch.setattr(pair, "compared_tensor", lambda name: type("R", (), {"value": True})())
    learnt = parse(learn(pair, "a b"), "learnt")
    assert learnt.name == "a-b"
    assert learnt.rules[0].subject.patterns == ("odd[[]1][*][?]\x1b##[[]error]",)
