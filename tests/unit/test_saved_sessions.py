"""Saved sessions: listed with what they say, and taken in place of two sides."""

import json
import shutil
from pathlib import Path

import pytest

from workbench.__main__ import run
from workbench.session.session import Session

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A folder of sessions: one with a verdict, one that nobody has bisected, and two that are damaged."""
    folder = tmp_path_factory.mktemp("saved") / "sessions"
    assert run(["demo", "--fault", "scaled", "--session", str(folder / "scaled")]) == 1
    shutil.copytree(folder / "scaled", folder / "fresh")
    (folder / "fresh" / "log.jsonl").unlink()
    for name in ("torn", "other"):
        (folder / name).mkdir()
        (folder / name / "session.json").write_text("{" if name == "torn" else '{"schema": 99}')
    (folder / "none").mkdir()
    return folder


def answered(arguments, capsys, status):
    capsys.readouterr()
    assert run([*map(str, arguments), "--json"]) == status
    out, err = capsys.readouterr()
    return json.loads(out), err


def test_sessions_are_listed_with_what_they_say_and_damaged_ones_are_named(places, capsys):
    before = {path: path.read_bytes() for path in places.rglob("*") if path.is_file()}
    record, err = answered(["sessions", places], capsys, 2)
    found = {Path(each["session"]).name: each for each in record["sessions"]}
    assert set(found) == {"scaled", "fresh"}
    assert found["scaled"]["verdict"] == "divergent"
    assert found["scaled"]["headline"].startswith("BROKEN at layer 3 ffn_up")
    assert found["fresh"]["verdict"] is None
    assert found["fresh"]["headline"].endswith("Nobody has bisected the pair.")
    assert [any(name in problem for problem in record["problems"]) for name in ("torn", "other")] == [True, True]
    assert err == f"workbench: {record['error']}\n"
    assert {path: path.read_bytes() for path in places.rglob("*") if path.is_file()} == before
    assert run(["sessions", str(places / "scaled")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(places / "scaled")
    assert lines[2] == f"  {found['scaled']['headline']}"


def test_a_verdict_on_other_files_is_none(places, tmp_path, capsys):
    shutil.copytree(places / "scaled", tmp_path / "moved")
    for name in ("a.h5", "b.h5"):
        (tmp_path / "moved" / name).unlink()
    record, _ = answered(["sessions", tmp_path], capsys, 0)
    assert record["sessions"][0]["verdict"] is None
    assert "no capture of that is here" in record["sessions"][0]["headline"]
    (tmp_path / "moved" / "log.jsonl").unlink()
    record, _ = answered(["sessions", tmp_path], capsys, 0)
    assert record["sessions"][0]["headline"] == "Nothing is captured yet."


def test_where_there_are_none_it_says_how_to_make_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Session, "default_folder", staticmethod(lambda name: tmp_path / "unmade" / name))
    assert run(["sessions"]) == 0
    assert capsys.readouterr().out == f"No session is in {tmp_path / 'unmade'} yet; `workbench open A B` makes one.\n"
    for wrong in (tmp_path / "nowhere", ROOT / "README.md"):
        assert run(["sessions", str(wrong)]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_session_stands_for_its_two_sides(places, capsys):
    pair = [next(places.glob("scaled/*.gguf")), next(places.glob("scaled/*.apr")), "--prompt", "def add(a, b):"]
    for command, status in ((["compare"], 0), (["check", "strict"], 1)):  # no band of compare sees this fault
        of_session, _ = answered([*command, places / "scaled"], capsys, 1)
        of_files, _ = answered([*command, *pair], capsys, status)
        unlike = {"headline", "prompt", "notes"} if command == ["check", "strict"] else {"headline"}
        assert {name: of_session[name] for name in of_session.keys() - unlike} == {
            name: of_files[name] for name in of_files.keys() - unlike
        }
    assert answered(["compare", places / "scaled", "--scope", "last", "--metric", "rel_rms"], capsys, 1)
    capsys.readouterr()
    for command in ("compare", "bisect", "patch"):
        assert run([command, str(places / "scaled"), "--tokens", "1"]) == 2
        assert "--tokens belongs to two sides" in capsys.readouterr().err
        assert run([command, str(pair[0])]) == 2
        assert "is one side; give the other one too" in capsys.readouterr().err


def test_bisect_of_a_session_keeps_the_verdict_and_patch_takes_what_it_accuses(places, tmp_path, capsys):
    shutil.copytree(places / "fresh", tmp_path / "s")
    assert run(["patch", str(tmp_path / "s")]) == 2
    assert "has no verdict on these files; bisect it first" in capsys.readouterr().err
    assert run(["bisect", str(tmp_path / "s")]) == 1
    listed, _ = answered(["sessions", tmp_path], capsys, 0)
    assert listed["sessions"][0]["verdict"] == "divergent"
    record, _ = answered(["patch", tmp_path / "s"], capsys, 1)
    assert record["part"] == "model.layers.3.mlp.up_proj.weight"
    assert [entry["kind"] for entry in Session.open(tmp_path / "s").entries()] == ["bisected", "patched"]
    assert run(["patch", str(tmp_path / "s" / "a.h5"), str(tmp_path / "s" / "b.h5")]) == 2
