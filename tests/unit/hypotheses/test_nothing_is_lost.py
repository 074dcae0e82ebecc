"""Killed tests, two processes and edits meanwhile lose nothing of a hypothesis."""

import json
import re
import signal
import subprocess
import sys

import pytest

from tests.claims import ROOT, of
from workbench.__main__ import run
from workbench.jobs.testing import try_session
from workbench.lab.contracts.reading import SHIPPED
from workbench.lab.hypotheses import read
from workbench.lab.predictions.errors import PredictionError
from workbench.lab.predictions.prediction import read_prediction
from workbench.lab.shelf import shelf_of
from workbench.lab.trial import Predicted
from workbench.session.files import SessionError
from workbench.session.session import Session

KILLED = """
import itertools, json, os, signal, sys
from pathlib import Path
from workbench.jobs.testing import try_session
from workbench.session.session import Session
from workbench.lab.shelf import shelf_of

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

killed, seen = 0, shelf_of(Session.open(folder)).hypotheses
for turn in range(30):
    child = os.fork()
    if child == 0:
        die_before(turn % 10)
        try:
            try_session(Session.open(folder), 2, lambda *_: None)
        finally:
            os._exit(0)
    killed += os.waitpid(child, 0)[1] == signal.SIGKILL
    session = Session.open(folder)
    shelf = shelf_of(session)
    assert not shelf.problems, shelf.problems
    for before, after in zip(seen, shelf.hypotheses, strict=True):
        assert after.history[: len(before.history)] == before.history
        assert len(after.history) <= len(before.history) + 1
        assert (after.body, after.claim, after.title) == (before.body, before.claim, before.title)
        assert after.status == (after.last_test or {"status": "UNTESTED"})["status"]
    seen = shelf.hypotheses
    told = [entry["tested"] for entry in session.entries() if entry["kind"] == "tested" and entry["number"] == 2]
    kept = [test["time"] for test in next(each for each in seen if each.number == 2).history]
    assert told == kept, "the log tells of every test that the history has, once, and of no other"
print(json.dumps({"killed": killed, "tests": len(next(each for each in seen if each.number == 2).history)}))
"""


def test_thirty_kills_lose_no_note_verdict_or_history(session):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, session.folder], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout)
    assert 15 <= counted["killed"] < 30, "some are killed on the way, and some come to their end"
    assert counted["tests"] > 30 - counted["killed"]
    left = [path.name for path in session.hypotheses_folder.iterdir() if path.name.endswith(".tmp")]
    Session.open(session.folder)
    assert not [path for path in session.hypotheses_folder.iterdir() if path.name.endswith(".tmp")], left


KILLED_BEFORE_THE_LOG = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from workbench.jobs.testing import try_session
from workbench.lab.shelf import keep, shelf_of
from workbench.session.session import Session
session = Session.open(Path(sys.argv[1]))
Session.log = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "test":
    try_session(session, 2, lambda *_: None)
else:
    by_hand = next(each for each in shelf_of(session).hypotheses if each.number == 8)
    keep(session, replace(by_hand, status="CONFIRMED"))
"""

READ = """
import sys
from pathlib import Path
from workbench.lab.shelf import shelf_of
from workbench.session.session import Session
session = Session.open(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(5):
    shelf_of(session)
"""


@pytest.mark.parametrize(
    ("killed", "number", "line"),
    [
        ("test", 2, {"kind": "tested", "status": "FALSIFIED", "value": False}),
        ("keep", 8, {"kind": "hypothesis changed", "status": "CONFIRMED", "title": "Claim 8"}),
    ],
)
def test_a_kill_between_file_and_log_is_made_good_once_by_whoever_reads(session, killed, number, line):
    before, log = of(session, number), (session.folder / "log.jsonl").read_bytes()
    child = subprocess.run([sys.executable, "-c", KILLED_BEFORE_THE_LOG, session.folder, killed], cwd=ROOT, check=False)
    assert child.returncode == -signal.SIGKILL
    after = of(session, number)
    assert after != before, "the file was written"
    assert (session.folder / "log.jsonl").read_bytes() == log, "the log was not"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    readers = [subprocess.Popen([sys.executable, "-c", READ, session.folder], cwd=ROOT, **pipes) for _ in range(3)]
    for reader in readers:
        assert reader.stdout.readline() == "ready\n"
    for reader in readers:
        reader.communicate("go\n")
    assert of(session, number) == after
    content = (session.folder / "log.jsonl").read_bytes()
    assert content.startswith(log)
    (told,) = map(json.loads, content[len(log) :].splitlines())
    assert told.items() >= {**line, "number": number, "file": f"hypotheses/{after.filename}"}.items()
    assert told.get("tested") == (after.history[-1]["time"] if killed == "test" else None)


def test_a_session_that_cannot_be_written_and_an_example_are_read_all_the_same(session, monkeypatch):
    text = (session.hypotheses_folder / "08-claim.md").read_text()
    (session.hypotheses_folder / "08-claim.md").write_text(text.replace("status: UNTESTED", "status: PARTIAL"))
    log = (session.folder / "log.jsonl").read_bytes()

    def refused(*_arguments, **_facts):
        raise SessionError("read-only")

    with monkeypatch.context() as patched:
        patched.setattr(Session, "log", refused)
        assert shelf_of(session).hypotheses[7].status == "PARTIAL"
    spec = session.folder / "session.json"
    spec.write_text(json.dumps(json.loads(spec.read_text()) | {"example": True}))
    assert shelf_of(Session.open(session.folder)).hypotheses[7].status == "PARTIAL"
    assert (session.folder / "log.jsonl").read_bytes() == log


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
