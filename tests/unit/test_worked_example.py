"""The worked example: made anew it is what is kept; it opens anywhere, and stays as it is whatever is asked."""

import json
import re
import shutil

import pytest

from tests.worked_example import EXAMPLE, NOT_KEPT, make
from workbench.__main__ import run
from workbench.lab.predictions.prediction import read_prediction
from workbench.lab.shelf import shelf_of
from workbench.lab.standing import board_of
from workbench.session.session import Session

KEPT = (".md", ".svg", ".json", ".jsonl")
# When it was made, by which versions on which machine, and the hashes of lines of the log, which have their times.
_MASKED = re.compile(
    r"\d{4}-\d\d-\d\dT[0-9:.]+\+00:00|(?<=line )(\d+: )[0-9a-f]{64}|^(- computed by: |- on: ).*$", re.M
)


def told(folder):
    """The texts of a session by name, without what differs from one time to the next."""
    files = [path for path in folder.rglob("*") if path.suffix in KEPT]
    texts = {str(path.relative_to(folder)): _MASKED.sub(r"\1\2", path.read_text()) for path in files}
    spec = json.loads(texts["session.json"])
    spec.pop("example", None)
    log = [json.loads(line) for line in texts["log.jsonl"].splitlines()]
    return texts | {"session.json": spec, "log.jsonl": [entry | {"seconds": None} for entry in log]}


def test_made_anew_it_is_what_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / EXAMPLE.name)
    made, kept = told(tmp_path / EXAMPLE.name), told(EXAMPLE)
    assert made.keys() == kept.keys()
    for name in made:
        assert made[name] == kept[name], name


def test_it_shows_what_an_investigation_is_made_of():
    session = Session.open(EXAMPLE)
    assert {entry["kind"] for entry in session.entries()} >= {"bisected", "patched", "tested", "experiment", "contract"}
    shelf = shelf_of(session)
    assert shelf.problems == []
    assert {each.status for each in shelf.hypotheses} == {"CONFIRMED", "FALSIFIED"}
    for hypothesis in shelf.hypotheses:
        assert hypothesis.last_test["status"] == hypothesis.status
        assert hypothesis.ladder or read_prediction(hypothesis.prediction)
    text = (EXAMPLE / "findings.md").read_text()
    parts = (
        "**BROKEN at layer 3 qkv_matmul",
        "## Hypotheses",
        "## Ledger",
        "## Contracts",
        "## Tensors",
        "## Appendix",
    )
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert "**parity: BROKEN (3 met, 2 broken)**" in text


def test_it_names_nobodys_machine():
    machine = re.compile(rb"(?<![\w.])/(home|root|tmp|work|Users|private)/|" + re.escape(str(EXAMPLE.parent).encode()))
    assert not [file for file in EXAMPLE.rglob("*") if file.suffix in KEPT and machine.search(file.read_bytes())]


@pytest.fixture
def checkout(tmp_path):
    """A checkout with nothing in it but the example."""
    shutil.copytree(EXAMPLE, tmp_path / "sessions" / EXAMPLE.name, ignore=NOT_KEPT)
    return tmp_path


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_opens_on_a_clean_checkout_and_stays_as_it_is(checkout, capsys):
    example = checkout / "sessions" / EXAMPLE.name
    before = contents(example)
    assert run(["open", str(example)]) == 1
    assert f"this is your copy of it: {example}-copy" in capsys.readouterr().err
    copy = Session.open(example.with_name(f"{EXAMPLE.name}-copy"))
    assert {each.status for each in board_of(copy).standings} == {"CONFIRMED", "FALSIFIED"}, "none is stale"
    for name, content in before.items():
        if name.suffix in KEPT and name.name != "session.json":
            assert (copy.folder / name).read_bytes() == content, f"{name}: nothing new was found"
    assert run(["hypotheses", str(example), "--test", "2"]) == 1
    assert run(["check", "parity", str(example)]) == 1
    assert run(["lab", "ledger", str(example)]) == 0
    assert run(["retract", str(example), "hypothesis 3", "--why", "to see"]) == 0
    assert run(["export", str(example)]) == 1
    assert contents(example) == before
    entries = [entry["kind"] for entry in copy.entries()]
    assert entries[-5:] == ["tested", "contract", "experiment", "retracted", "exported"], "all is in the one copy"
