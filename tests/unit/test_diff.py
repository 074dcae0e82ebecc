"""Two sessions side by side: what a fix has changed, and what cannot be set side by side."""

import json
import shutil
from importlib.resources import files

import jsonschema
import pytest

from kernels.stages import Site
from tests.artifacts import tiny_gguf
from workbench.__main__ import run
from workbench.demo import MODEL, make_copy
from workbench.lab.hypotheses import Hypothesis
from workbench.lab.shelf import keep
from workbench.session.session import Session

TOKENS = "482,803,10,67"
SCHEMA = json.loads((files("workbench") / "schemas" / "diff.schema.json").read_text())


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    """A session about a broken copy, one about the mended one, and one about a copy that is broken elsewhere."""
    place = tmp_path_factory.mktemp("diff")
    copies = {"broken": ("gate_up_swapped", 3), "mended": (None, 3), "moved": ("scaled", 1)}
    for name, (fault, layer) in copies.items():
        make_copy(place / f"{name}.apr", fault, layer)
        words = ["open", MODEL, place / f"{name}.apr", "--tokens", TOKENS, "--session", place / name]
        assert run([str(word) for word in words]) == (0 if fault is None else 1)
        status = "CONFIRMED" if fault else "FALSIFIED"
        keep(Session.open(place / name), Hypothesis("It is [gate]", Site(3, "ffn_gate"), "c", "p", status=status))
    return place


def diff(then, now, capsys, status):
    capsys.readouterr()
    assert run(["diff", str(then), str(now), "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_a_fix_is_told_with_its_figures(sessions, capsys):
    record = diff(sessions / "broken", sessions / "mended", capsys, 0)
    jsonschema.validate(record, SCHEMA)
    assert (record["then"]["verdict"], record["now"]["verdict"]) == ("divergent", "numerics_only")
    assert record["culprit"] == "gone"
    assert [(cell["layer"], cell["stage"]) for cell in record["fell"]] == [(3, "ffn_gate"), (3, "ffn_up")]
    assert all(cell["now"] <= 8 < cell["then"] for cell in record["fell"])
    assert record["rose"] == record["not_run"] == []
    assert record["then"]["kl_b_a_mean"] > 10 * record["now"]["kl_b_a_mean"]
    assert record["hypotheses"] == [{"title": "It is [gate]", "then": "CONFIRMED", "now": "FALSIFIED"}]
    assert [record["files"][side]["changed"] for side in "ab"] == [False, True]
    assert run(["diff", str(sessions / "broken"), str(sessions / "mended")]) == 0
    out = capsys.readouterr().out
    assert "gone; it was layer 3 ffn_gate: gate_up_swapped" in out
    assert "no longer more than rounding can cause" in out


def test_the_exit_code_is_that_of_the_second_verdict(sessions, capsys):
    back = diff(sessions / "mended", sessions / "broken", capsys, 1)
    assert (back["culprit"], len(back["rose"])) == ("new", 2)
    assert diff(sessions / "broken", sessions / "broken", capsys, 1)["culprit"] == "stays"
    moved = diff(sessions / "broken", sessions / "moved", capsys, 1)
    assert moved["culprit"] == "moved"
    assert (moved["then"]["culprit"]["layer"], moved["now"]["culprit"]["layer"]) == (3, 1)


def test_hypotheses_are_paired_by_what_they_say(sessions, tmp_path, capsys):
    """Renamed ones by their predictions, two of one title by their own words."""
    places = [tmp_path / name for name in ("then", "now")]
    for place, source, status in zip(places, ("broken", "mended"), ("CONFIRMED", "FALSIFIED"), strict=True):
        shutil.copytree(sessions / source, place)
        session, late = Session.open(place), source == "mended"
        name = "Larger" if late else "Rows are larger"
        keep(
            session,
            Hypothesis(name, None, "other words" if late else "c", 'cell("lm_head").rel_rms > 2', status=status),
        )
        for claim in ("two", "one") if late else ("one", "two"):
            keep(session, Hypothesis("Twice", None, claim, "", status=status if claim == "one" else "CONFIRMED"))
    record = diff(*places, capsys, 0)
    assert [(each["title"], each["then"], each["now"]) for each in record["hypotheses"]] == [
        ("It is [gate]", "CONFIRMED", "FALSIFIED"),
        ("Twice", "CONFIRMED", "FALSIFIED"),
        ("Larger", "CONFIRMED", "FALSIFIED"),
    ]


def refused(then, now, capsys):
    error = diff(then, now, capsys, 2)["error"]
    assert set(error) - {"\n"} == set(error)
    return error


def test_what_is_unlike_is_refused_in_a_sentence(sessions, tmp_path, capsys):
    copy = sessions / "mended.apr"
    assert run(["open", str(MODEL), str(copy), "--tokens", "482,803", "--session", str(tmp_path / "short")]) == 0
    assert "different tokens (4 and 2 of them)" in refused(sessions / "broken", tmp_path / "short", capsys)
    small = tmp_path / "small.gguf"
    tiny_gguf(small, layers=2, vocab=900)
    pair = ["open", str(small), str(small), "--tokens", TOKENS, "--session", str(tmp_path / "small")]
    assert run(pair) == 0
    assert "no copies of one model" in refused(sessions / "broken", tmp_path / "small", capsys)
    words = ["--path-a", "apr", "--tokens", TOKENS, "--session", str(tmp_path / "swapped")]
    assert run(["open", str(copy), str(copy), *words]) == 0
    assert "no file in common" in refused(sessions / "broken", tmp_path / "swapped", capsys)
    shutil.copytree(sessions / "mended", tmp_path / "unsaid")
    (tmp_path / "unsaid" / "log.jsonl").unlink()
    assert "has no verdict" in refused(sessions / "broken", tmp_path / "unsaid", capsys)
