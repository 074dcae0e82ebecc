"""The session folder: reopened exactly, validated in sentences, safe against crashes and other processes."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.stages import Site
from workbench.lab.hypothesis import Hypothesis
from workbench.lab.shelf import keep, shelf_of
from workbench.session.files import SessionError
from workbench.session.session import Session, SessionSpec, Side

ROOT = Path(__file__).parents[2]
SPEC = SessionSpec(
    a=Side("/models/a.gguf", "ggml"),
    b=Side("/models/b\udcff.apr", "apr"),
    tokens=(3, 1, 4),
    prompt='def é(a):\n\t"',
    view={"metric": "rel_rms", "cursor": [3, "ffn_up"], "transposed": None},
)


def test_a_session_is_reopened_exactly(tmp_path):
    created = Session.create(tmp_path / "tuesday", SPEC)
    opened = Session.open(tmp_path / "tuesday")
    assert opened.spec == created.spec == replace(SPEC, name="tuesday")
    opened.save_view({"metric": "std_ratio", "cursor": (None, "lm_head")})
    assert Session.open(tmp_path / "tuesday").spec.view == {"metric": "std_ratio", "cursor": [None, "lm_head"]}
    assert opened.trace_path("b") == tmp_path / "tuesday" / "b.h5"


@given(
    st.builds(
        SessionSpec, *[st.builds(Side, st.just("/m/x"), st.text())] * 2, st.lists(st.integers(0, 2**31 - 1)).map(tuple)
    )
)
def test_any_spec_survives(tmp_path_factory, spec):
    folder = tmp_path_factory.mktemp("sessions") / "s"
    Session.create(folder, spec)
    assert Session.open(folder).spec == replace(spec, name="s")


def test_files_inside_of_the_folder_move_with_it(tmp_path):
    inside = replace(SPEC, b=Side(str(tmp_path / "old" / "b.apr"), "apr"))
    Session.create(tmp_path / "old", inside)
    (tmp_path / "old").rename(tmp_path / "new")
    spec = Session.open(tmp_path / "new").spec
    assert spec.a == SPEC.a
    assert spec.b.path == str(tmp_path / "new" / "b.apr")


def test_an_existing_session_is_never_written_over(tmp_path):
    Session.create(tmp_path / "s", SPEC)
    before = (tmp_path / "s" / "session.json").read_bytes()
    with pytest.raises(SessionError, match="holds a session already; open it, or choose another folder"):
        Session.create(tmp_path / "s", replace(SPEC, tokens=(1,)))
    assert (tmp_path / "s" / "session.json").read_bytes() == before
    (tmp_path / "file").touch()
    with pytest.raises(SessionError, match=r"file/s cannot be made \(Not a directory\)"):
        Session.create(tmp_path / "file" / "s", SPEC)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema": 2}, "has schema 2; this program reads schema 1"),
        ({"schema": None}, "has schema None"),
        ({"a": "x"}, "field a is not an object with the texts path and numeric_path"),
        ({"b": {"path": "x"}}, "field b is not an object"),
        ({"b": {"path": "", "numeric_path": "f32"}}, "field b is not an object"),
        ({"tokens": "1,2"}, "field tokens is not a list of token ids"),
        ({"tokens": [1, -2]}, "field tokens"),
        ({"tokens": [True]}, "field tokens"),
        ({"prompt": 7}, "field prompt is not a text or null"),
        ({"view": []}, "field view is not an object"),
        ({"created": 5}, "field created is not a text"),
        ({"name": 5}, "field name is not a text"),
    ],
)
def test_a_session_json_broken_by_hand_gives_a_sentence_and_is_left_alone(tmp_path, change, sentence):
    session = Session.create(tmp_path / "s", SPEC)
    file = tmp_path / "s" / "session.json"
    file.write_text(broken := json.dumps(json.loads(file.read_text()) | change))
    for use in (lambda: Session.open(tmp_path / "s"), lambda: session.save_view({})):
        with pytest.raises(SessionError, match=sentence) as refused:
            use()
        assert str(file) in str(refused.value)
    assert file.read_text() == broken


def test_missing_fields_and_files_are_named(tmp_path):
    Session.create(tmp_path / "s", SPEC)
    file = tmp_path / "s" / "session.json"
    record = json.loads(file.read_text())
    for name, sentence in {
        "schema": "no schema number",
        "a": "field a is missing",
        "tokens": "tokens is missing",
    }.items():
        file.write_text(json.dumps({key: value for key, value in record.items() if key != name}))
        with pytest.raises(SessionError, match=sentence):
            Session.open(tmp_path / "s")
    for content, sentence in {
        b'{"schema": 1,\n  oops': "is not JSON at line 2",
        b"\xff": "not JSON",
        b"[]": "schema",
    }.items():
        file.write_bytes(content)
        with pytest.raises(SessionError, match=sentence):
            Session.open(tmp_path / "s")
    with pytest.raises(SessionError, match=r"is not a session: it holds no session.json"):
        Session.open(tmp_path)
    with pytest.raises(SessionError, match=r"session.json is a file and not the folder of a session"):
        Session.open(file)


def test_a_hand_edit_survives_saving_the_view(tmp_path):
    session = Session.create(tmp_path / "s", SPEC)
    file = tmp_path / "s" / "session.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"name": "renamed", "mine": [1]}))
    session.save_view({"metric": "rms"})
    record = json.loads(file.read_text())
    assert (record["name"], record["mine"], record["view"]) == ("renamed", [1], {"metric": "rms"})


# The log


def test_the_log_keeps_what_json_can_hold_and_the_time(tmp_path):
    session = Session.create(tmp_path / "s", SPEC)
    assert session.entries() == []
    session.log("verdict", site=Site(3, "ffn_up"), value=float("nan"), folder=tmp_path, text="a\nb")
    (entry,) = session.entries()
    assert entry.pop("time").endswith("+00:00")
    assert entry == {
        "kind": "verdict",
        "site": [3, "ffn_up"],
        "value": "nan",
        "folder": str(tmp_path),
        "text": "a\nb",
    }


@pytest.mark.parametrize("torn", [b'{"time": "2026-', b"\xff\xfe", b'{"kind": "x"}garbage', b"[1]"])
def test_a_torn_last_line_is_left_out_and_does_not_swallow_the_next(tmp_path, torn):
    session = Session.create(tmp_path / "s", SPEC)
    session.log("one")
    with (tmp_path / "s" / "log.jsonl").open("ab") as log:
        log.write(torn)
    assert [entry["kind"] for entry in session.entries()] == ["one"]
    session.log("two")
    assert [entry["kind"] for entry in session.entries()] == ["one", "two"]


WRITER = """
import sys
from pathlib import Path
from kernels.stages import Site
from workbench.lab.hypothesis import Hypothesis
from workbench.lab.shelf import keep
from workbench.session.session import Session
session = Session.open(Path(sys.argv[1]))
for n in range(12):
    session.log("note", who=sys.argv[2], n=n, padding="x" * 3000)
    keep(session, Hypothesis(f"{sys.argv[2]} {n}", Site(None, "lm_head"), "claim", "prediction"))
    session.save_view({"who": sys.argv[2]})
"""


def test_two_programs_on_one_session_lose_nothing(tmp_path):
    session = Session.create(tmp_path / "s", SPEC)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, session.folder, who], cwd=ROOT) for who in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    expected = {(who, n) for who in "ab" for n in range(12)}
    notes = [entry for entry in session.entries() if entry["kind"] == "note"]
    assert sorted((entry["who"], entry["n"]) for entry in notes) == sorted(expected)
    assert {hypothesis.title for hypothesis in shelf_of(session).hypotheses} == {f"{who} {n}" for who, n in expected}
    assert len([entry for entry in session.entries() if entry["kind"] == "hypothesis"]) == len(expected)
    assert Session.open(session.folder).spec.view["who"] in "ab"


def test_a_broken_hypothesis_is_a_problem_of_the_session(tmp_path):
    session = Session.create(tmp_path / "s", SPEC)
    keep(session, Hypothesis("fine", Site(None, "lm_head"), "claim", "prediction"))
    (session.hypotheses_folder / "02-broken.md").write_text("---\nclaim: [\n---\n")
    assert [hypothesis.title for hypothesis in shelf_of(session).hypotheses] == ["fine"]
    (problem,) = shelf_of(session).problems
    assert problem.startswith("hypotheses/02-broken.md, line ")


def test_a_full_disk_is_told_in_a_sentence(tmp_path, monkeypatch):
    session = Session.create(tmp_path / "s", SPEC)

    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SessionError, match=r"session.json cannot be written \(No space left on device\)"):
        session.save_view({"metric": "rms"})
    with pytest.raises(SessionError, match=r"log.jsonl cannot be written"):
        session.log("verdict")
    assert Session.open(tmp_path / "s").spec.view == SPEC.view


# Where sessions belong


def test_sessions_belong_to_the_checkout_else_to_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    user = tmp_path / "data" / "layer-workbench" / "sessions"
    assert Session.default_folder("tiny") == user / "tiny"
    assert Session.default_folder("../../etc\n/x") == user / "etc-x"
    assert Session.default_folder("..") == user / "session"
    (tmp_path / "sessions").mkdir()
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "another"\n')
    assert Session.default_folder("tiny").is_relative_to(user)
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (tmp_path / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "down")
    assert Session.default_folder("tiny") == tmp_path / "sessions" / "tiny"
